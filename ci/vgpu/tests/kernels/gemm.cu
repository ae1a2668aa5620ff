// D = A·B + bias: bf16 or f16 in, f32 out. Blocks of 4 warps make 64 × 64 of D in steps of 32, two
// stages of cp.async; ldmatrix and mma.sync as in any main loop for sm_80. Sizes are multiples of the
// tile.
#include <stdint.h>

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void copy16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}
template <bool TRANSPOSE>
__device__ __forceinline__ void load4(uint32_t (&r)[4], const void* p) {
  if (TRANSPOSE)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)));
}
#define MMA(type)                                                                             \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                 \
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                        \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <bool HALF>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if (HALF) MMA("f16"); else MMA("bf16");
}

constexpr int TILE = 64, STEP = 32, PAD = 8;  // rows are padded: no two of eight share a bank

template <bool HALF>
__device__ void gemm(const uint16_t* A, const uint16_t* B, float* D, const float* bias, int n, int k) {
  __shared__ __align__(16) uint16_t a[2][TILE][STEP + PAD], b[2][STEP][TILE + PAD];
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int row = blockIdx.y * TILE, column = blockIdx.x * TILE;
  const int m0 = warp / 2 * 32, n0 = warp % 2 * 32;
  float acc[2][4][4] = {};
  auto fetch = [&](int step, int stage) {
#pragma unroll
    for (int half = 0; half < 2; half++) {  // as many as it takes, so that no code is there for others
      const int i = t + 128 * half;
      copy16(&a[stage][i / 4][i % 4 * 8], A + static_cast<size_t>(row + i / 4) * k + step * STEP + i % 4 * 8);
      copy16(&b[stage][i / 8][i % 8 * 8], B + static_cast<size_t>(step * STEP + i / 8) * n + column + i % 8 * 8);
    }
    asm volatile("cp.async.commit_group;");
  };
  fetch(0, 0);
  for (int step = 0; step < k / STEP; step++) {
    if (step + 1 < k / STEP) {
      fetch(step + 1, (step + 1) % 2);
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    for (int kk = 0; kk < STEP; kk += 16) {
      uint32_t x[2][4], y[2][4];
      for (int i = 0; i < 2; i++) load4<false>(x[i], &a[step % 2][m0 + 16 * i + lane % 16][kk + lane / 16 * 8]);
      for (int j = 0; j < 2; j++) load4<true>(y[j], &b[step % 2][kk + lane % 16][n0 + 16 * j + lane / 16 * 8]);
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) mma<HALF>(acc[i][j], x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();  // the stage is free again
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 4; j++)
      for (int e = 0; e < 4; e++) {
        const int r = row + m0 + 16 * i + lane / 4 + 8 * (e / 2), c = column + n0 + 8 * j + lane % 4 * 2 + e % 2;
        D[static_cast<size_t>(r) * n + c] = acc[i][j][e] + bias[c];
      }
}
extern "C" __global__ void __launch_bounds__(128)
    gemm_bf16(const uint16_t* A, const uint16_t* B, float* D, const float* bias, int n, int k) {
  gemm<false>(A, B, D, bias, n, k);
}
extern "C" __global__ void __launch_bounds__(128)
    gemm_f16(const uint16_t* A, const uint16_t* B, float* D, const float* bias, int n, int k) {
  gemm<true>(A, B, D, bias, n, k);
}
