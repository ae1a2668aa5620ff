// What differs between targets, for gfx90a.
#pragma once
#include <stdint.h>
#include <hip/hip_runtime.h>

#define HS_DEVICE __device__ __forceinline__

// One entry point: a function (whose template arguments may have commas) on one parameter block, in blocks of
// so many threads, four waves. A block that has a compute unit to itself has all registers; with two waves a SIMD,
// 256 a lane are left, and more blocks are for the other target.
#define HS_KERNEL(name, Block, threads, blocks, ...)                                                        \
  extern "C" __global__ void __launch_bounds__(threads, (blocks) == 1 ? 1 : 2) name(const hs::Block p) { \
    hs::__VA_ARGS__(p);                                                                                      \
  }

// What the loader compares with the crate's own number: parameter blocks and rows.
#define HS_ABI(number) extern "C" __attribute__((used)) __device__ uint64_t hs_abi = number;

namespace hs {

constexpr uint32_t WAVE = 64;  // threads that go together

// An address in global memory as a pointer. Addresses come out of parameter blocks, where nothing
// says of which memory they are; an access that must find out (flat) counts on both wait counters.
template <class T>
HS_DEVICE T* global(uint64_t address) {
  return (T*)reinterpret_cast<T __attribute__((address_space(1)))*>(address);
}

// The kernel's parameter block, as if it were another: what is read of it is loaded where it is used, instead of
// staying in a hundred scalar registers from the first line on. (The compiler keeps those that are too many in
// lanes of vector registers.)
template <class Block>
HS_DEVICE const Block& reload(const Block&) {
  auto* block = (const Block __attribute__((address_space(4)))*)__builtin_amdgcn_kernarg_segment_ptr();
  asm volatile("" : "+s"(block));
  return *(const Block*)block;
}

// The number, as if it were another: what follows from it is computed again, instead of staying in registers.
HS_DEVICE uint32_t again(uint32_t x) {
  asm volatile("" : "+v"(x));
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
// them come here. (A fence waits for its own wave's stores only, so each wave has one before they meet.)
HS_DEVICE void publish_block() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
  barrier();
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
}
// The block's threads see what was published with what its threads have seen by adding. All of them come here.
HS_DEVICE void see_published() {
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
  barrier();
}

HS_DEVICE void atomic_add(uint64_t* to, uint64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}
// These return what was there.
HS_DEVICE uint32_t atomic_add(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }
HS_DEVICE uint32_t atomic_add_shared(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }

// The larger of a lane's and that of the lane so many before it, of 16 in a ring.
template <int LANES>
HS_DEVICE uint32_t max_in_ring(uint32_t x) {
  const int other = __builtin_amdgcn_update_dpp(0, static_cast<int>(x), 0x120 + LANES, 0xf, 0xf, false);
  return x > static_cast<uint32_t>(other) ? x : static_cast<uint32_t>(other);
}

// The largest of 32 threads from a multiple of 32 on, all of whose wave call it together.
HS_DEVICE uint32_t max_of_32(uint32_t x) {
  x = max_in_ring<1>(max_in_ring<2>(max_in_ring<4>(max_in_ring<8>(x))));
  auto of = [&](int lane) { return static_cast<uint32_t>(__builtin_amdgcn_readlane(static_cast<int>(x), lane)); };
  const uint32_t low = of(0) > of(16) ? of(0) : of(16), high = of(32) > of(48) ? of(32) : of(48);
  return thread_index() % 64 < 32 ? low : high;
}

// To nearest, ties to even; for values that fit.
HS_DEVICE int32_t nearest_int(double x) { return static_cast<int32_t>(__builtin_rint(x)); }
HS_DEVICE double double_from_bits(uint64_t x) { return __builtin_bit_cast(double, x); }

HS_DEVICE uint32_t bits(float x) { return __float_as_uint(x); }
HS_DEVICE float from_bits(uint32_t x) { return __uint_as_float(x); }

// Correctly rounded, as IEEE 754 has it.
HS_DEVICE float square_root(float x) { return sqrtf(x); }
HS_DEVICE double square_root(double x) { return sqrt(x); }

constexpr double INFINITE = __builtin_huge_val();

// f16 <-> f32: exact one way, to nearest even the other, subnormals kept.
HS_DEVICE float widen_f16(uint16_t x) { return static_cast<float>(__builtin_bit_cast(_Float16, x)); }
HS_DEVICE uint16_t narrow_f16(float x) {
  return __builtin_bit_cast(uint16_t, static_cast<_Float16>(x));
}

// Loads and stores of streams: 2, 4 or 16 bytes at a multiple of as many.
HS_DEVICE uint16_t load2(uint64_t address) { return *global<const uint16_t>(address); }
HS_DEVICE uint32_t load4(uint64_t address) { return *global<const uint32_t>(address); }
HS_DEVICE uint4 load16(uint64_t address) { return *global<const uint4>(address); }
HS_DEVICE void store2(uint64_t address, uint16_t x) { *global<uint16_t>(address) = x; }
HS_DEVICE void store4(uint64_t address, uint32_t x) { *global<uint32_t>(address) = x; }
HS_DEVICE void store16(uint64_t address, uint4 x) { *global<uint4>(address) = x; }

}  // namespace hs

#define HS_SHARED __shared__

// The memory of a tile's block: any size that there is can be declared.
#define HS_SHARED_OF_TILE(name, bytes, large) __shared__ __attribute__((aligned(128))) char name[bytes]
