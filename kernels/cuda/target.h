// What differs between targets, for sm_80 and newer.
#pragma once
#include <stdint.h>
#include <cuda_fp16.h>

#define HS_DEVICE __device__ __forceinline__

// One entry point: a function (whose template arguments may have commas) on one parameter block, in blocks of
// so many threads, of which so many are to fit a multiprocessor.
#define HS_KERNEL(name, Block, threads, blocks, ...)                                                              \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ hs::Block p) { \
    hs::__VA_ARGS__(p);                                                                                            \
  }

// What the loader compares with the crate's own number: parameter blocks and rows.
#define HS_ABI(number) extern "C" __attribute__((used)) __device__ uint64_t hs_abi = number;

namespace hs {

constexpr uint32_t WAVE = 32;  // threads that go together

// An address in global memory as a pointer. Addresses come out of parameter blocks, where nothing
// says of which memory they are; an access that must find out costs more.
template <class T>
HS_DEVICE T* global(uint64_t address) {
  T* pointer = reinterpret_cast<T*>(address);
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

// The kernel's parameter block, whose fields are loaded where they are used: here they are operands of
// instructions anyway.
template <class Block>
HS_DEVICE const Block& reload(const Block& block) {
  return block;
}

// The number, as if it were another: what follows from it is computed again, instead of staying in registers.
HS_DEVICE uint32_t again(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}
HS_DEVICE uint64_t again(uint64_t x) {
  asm volatile("" : "+l"(x));
  return x;
}

HS_DEVICE uint32_t thread_index() { return threadIdx.x; }
HS_DEVICE uint32_t block_index() { return blockIdx.x; }
HS_DEVICE uint32_t block_count() { return gridDim.x; }

// Every thread of the block has come, and sees what the others have written to shared memory.
HS_DEVICE void barrier() { __syncthreads(); }

// What this thread has written is seen, by the host too, before what it writes from now on.
HS_DEVICE void fence_system() { __threadfence_system(); }

// What the block's threads have written is seen by whoever sees what this thread adds atomically from now on. All of
// them come here.
HS_DEVICE void publish_block() {
  barrier();
  asm volatile("fence.acq_rel.gpu;" : : : "memory");
}
// The block's threads see what was published with what its threads have seen by adding. All of them come here.
HS_DEVICE void see_published() {
  asm volatile("fence.acq_rel.gpu;" : : : "memory");
  barrier();
}

HS_DEVICE void atomic_add(uint64_t* to, uint64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}
// These return what was there.
HS_DEVICE uint32_t atomic_add(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }
HS_DEVICE uint32_t atomic_add_shared(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }

// The largest of 32 threads from a multiple of 32 on, all of which call it together.
HS_DEVICE uint32_t max_of_32(uint32_t x) { return __reduce_max_sync(0xffffffffu, x); }

// To nearest, ties to even; for values that fit.
HS_DEVICE int32_t nearest_int(double x) { return __double2int_rn(x); }
HS_DEVICE double double_from_bits(uint64_t x) { return __longlong_as_double(static_cast<long long>(x)); }

HS_DEVICE uint32_t bits(float x) { return __float_as_uint(x); }
HS_DEVICE float from_bits(uint32_t x) { return __uint_as_float(x); }

// Correctly rounded, as IEEE 754 has it.
HS_DEVICE float square_root(float x) { return __fsqrt_rn(x); }
HS_DEVICE double square_root(double x) { return __dsqrt_rn(x); }

constexpr double INFINITE = __builtin_huge_val();

// f16 <-> f32: exact one way, to nearest even the other, subnormals kept.
HS_DEVICE float widen_f16(uint16_t x) { return __half2float(__ushort_as_half(x)); }
HS_DEVICE uint16_t narrow_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }

// Loads and stores of streams: 2, 4 or 16 bytes at a multiple of as many. In so many words, since the
// compiler does not carry what `global` says through branches.
HS_DEVICE uint16_t load2(uint64_t address) {
  uint16_t x;
  asm volatile("ld.global.u16 %0, [%1];" : "=h"(x) : "l"(address) : "memory");
  return x;
}
HS_DEVICE uint32_t load4(uint64_t address) {
  uint32_t x;
  asm volatile("ld.global.u32 %0, [%1];" : "=r"(x) : "l"(address) : "memory");
  return x;
}
HS_DEVICE uint4 load16(uint64_t address) {
  uint4 x;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(address) : "memory");
  return x;
}
HS_DEVICE void store2(uint64_t address, uint16_t x) {
  asm volatile("st.global.u16 [%0], %1;" : : "l"(address), "h"(x) : "memory");
}
HS_DEVICE void store4(uint64_t address, uint32_t x) {
  asm volatile("st.global.u32 [%0], %1;" : : "l"(address), "r"(x) : "memory");
}
HS_DEVICE void store16(uint64_t address, uint4 x) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               : : "l"(address), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}

}  // namespace hs

#define HS_SHARED __shared__

// The memory of a tile's block. One that is `large` is more than a kernel may declare: its launch asks for it.
#define HS_SHARED_OF_TILE(name, bytes, large)             \
  char* name;                                             \
  if constexpr (large) {                                  \
    extern __shared__ __attribute__((aligned(128))) char asked[]; \
    name = asked;                                         \
  } else {                                                \
    __shared__ __attribute__((aligned(128))) char own[bytes]; \
    name = own;                                           \
  }
