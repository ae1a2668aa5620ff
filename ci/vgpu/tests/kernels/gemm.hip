// D = A·Bᵀ: bf16 or f16 in, f32 out; A is m × k, B is n × k, both with k innermost. Blocks of 4 waves
// make 128 × 128 of D in steps of 32, two stages of LDS, the next step's loads on their way while this
// one is multiplied. Buffer loads give 0 beyond the last row, buffer stores drop what is there, so m
// and n need be no multiples of the tile. 16 bytes of LDS are 8 of k; their places are permuted so that
// no two of eight lanes share a bank.
#include <hip/hip_runtime.h>
#include <stdint.h>

typedef short s4 __attribute__((ext_vector_type(4)));
typedef _Float16 h4 __attribute__((ext_vector_type(4)));
typedef int i2 __attribute__((ext_vector_type(2)));
typedef int i4 __attribute__((ext_vector_type(4)));
typedef float f4 __attribute__((ext_vector_type(4)));
typedef float f16v __attribute__((ext_vector_type(16)));

extern "C" __device__ i4 buffer_load(i4 resource, int offset, int scalar, int cache) __asm(
    "llvm.amdgcn.raw.buffer.load.v4i32");
extern "C" __device__ void buffer_store(float x, i4 resource, int offset, int scalar, int cache) __asm(
    "llvm.amdgcn.raw.buffer.store.f32");

__device__ __forceinline__ i4 resource(const void* base, int bytes) {
  const uint64_t a = reinterpret_cast<uint64_t>(base);
  return i4{__builtin_amdgcn_readfirstlane(static_cast<int>(a)),
            __builtin_amdgcn_readfirstlane(static_cast<int>(a >> 32) & 0xffff),
            __builtin_amdgcn_readfirstlane(bytes), 0x00027000};
}

template <bool HALF>
__device__ __forceinline__ f16v multiply(i2 a, i2 b, f16v c) {
  if constexpr (HALF)
    return __builtin_amdgcn_mfma_f32_32x32x8f16(__builtin_bit_cast(h4, a), __builtin_bit_cast(h4, b), c, 0, 0, 0);
  else
    return __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(__builtin_bit_cast(s4, a), __builtin_bit_cast(s4, b), c, 0, 0, 0);
}

constexpr int TILE = 128, STEP = 32, CHUNKS = STEP / 8, STAGE = 2 * CHUNKS * TILE * 16;
__device__ __forceinline__ int place(int chunk, int row) {
  return (chunk * TILE + (row ^ (row >> 3 & 3) ^ (chunk & 3) << 1)) * 16;
}
// Loads stay on their way: only LDS is waited for.
__device__ __forceinline__ void barrier() { asm volatile("s_waitcnt lgkmcnt(0)\n s_barrier" ::: "memory"); }

template <bool HALF>
__device__ __forceinline__ void gemm(const uint16_t* A, const uint16_t* B, float* D, int m, int n, int k) {
  __shared__ __align__(16) char lds[2 * STAGE];
  const int t = threadIdx.x, lane = t % 64, wave = __builtin_amdgcn_readfirstlane(t / 64);
  const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  const int rows = m - row0 < TILE ? m - row0 : TILE, columns = n - column0 < TILE ? n - column0 : TILE;
  const i4 ra = resource(A + static_cast<size_t>(row0) * k, rows * k * 2);
  const i4 rb = resource(B + static_cast<size_t>(column0) * k, columns * k * 2);
  const int chunk = t % CHUNKS, row = t / CHUNKS;  // 64 rows at once
  const int offset = (row * k + chunk * 8) * 2, half = 64 * k * 2;
  i4 next[4];
  auto fetch = [&](int step) {
    for (int i = 0; i < 2; i++) next[i] = buffer_load(ra, offset, step * STEP * 2 + i * half, 0);
    for (int i = 0; i < 2; i++) next[2 + i] = buffer_load(rb, offset, step * STEP * 2 + i * half, 0);
  };
  auto keep = [&](int stage) {
    char* to = lds + stage * STAGE;
    for (int i = 0; i < 2; i++) *reinterpret_cast<i4*>(to + place(chunk, row + 64 * i)) = next[i];
    for (int i = 0; i < 2; i++) *reinterpret_cast<i4*>(to + STAGE / 2 + place(chunk, row + 64 * i)) = next[2 + i];
  };
  f16v sum[2][2] = {};
  const int high = lane / 32, low = lane % 32, m0 = wave / 2 * 64, n0 = wave % 2 * 64;
  fetch(0);
  keep(0);
  for (int step = 0; step < k / STEP; step++) {
    if (step + 1 < k / STEP) fetch(step + 1);
    barrier();
    const char* from = lds + step % 2 * STAGE;
    for (int g = 0; g < 2; g++) {
      i4 a[2], b[2];
      for (int i = 0; i < 2; i++) a[i] = *reinterpret_cast<const i4*>(from + place(2 * g + high, m0 + 32 * i + low));
      for (int j = 0; j < 2; j++) b[j] = *reinterpret_cast<const i4*>(from + STAGE / 2 + place(2 * g + high, n0 + 32 * j + low));
      for (int s = 0; s < 2; s++)
        for (int i = 0; i < 2; i++)
          for (int j = 0; j < 2; j++)
            sum[i][j] = multiply<HALF>(i2{a[i][2 * s], a[i][2 * s + 1]}, i2{b[j][2 * s], b[j][2 * s + 1]}, sum[i][j]);
    }
    if (step + 1 < k / STEP) keep((step + 1) % 2);
  }
  const i4 rd = resource(D + static_cast<size_t>(row0) * n, rows * n * 4);
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++)
      for (int e = 0; e < 16; e++) {
        const int r = m0 + 32 * i + 8 * (e / 4) + 4 * high + e % 4, c = column0 + n0 + 32 * j + low;
        buffer_store(sum[i][j][e], rd, c < n ? (r * n + c) * 4 : -1, 0, 0);
      }
}
extern "C" __global__ void __launch_bounds__(256)
    gemm_bf16(const uint16_t* A, const uint16_t* B, float* D, int m, int n, int k) {
  gemm<false>(A, B, D, m, n, k);
}
extern "C" __global__ void __launch_bounds__(256)
    gemm_f16(const uint16_t* A, const uint16_t* B, float* D, int m, int n, int k) {
  gemm<true>(A, B, D, m, n, k);
}
