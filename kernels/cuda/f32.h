// f32 products for sm_80 and newer, on the vector unit: each of 256 threads has 4×4 sums of a 64×64 tile, each one
// chain of fmaf over k in ascending order, so that the CPU's bits come out. (The matrix unit has no f32: tf32 loses
// 13 bits of the factors.)
#pragma once
#include "gemm/epilogue.h"

namespace hs {

struct F32Sums {
  static constexpr uint32_t THREADS = 256;
  static constexpr uint32_t BANDS = 2;  // of rows
  static constexpr uint32_t LD = 64 + 4;                    // [k][lane], rows of 16-byte units
  static constexpr uint32_t OPERAND_BYTES = 32 * LD * 4;
  float sum[4][4];

  HS_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) sum[i][j] = 0.0f;
    }
  }

  HS_DEVICE static void store(char* to, uint32_t chunk, uint32_t lane, const float (&x)[8]) {
    float* rows = reinterpret_cast<float*>(to);
#pragma unroll
    for (uint32_t e = 0; e < 8; e++) rows[(8 * chunk + e) * LD + lane] = x[e];
  }

  // The thread's rows are pairs: 2g, 2g + 1 of each 16 that a slab takes of the tile's half.
  HS_DEVICE void multiply(const char* a, const char* b) {
    const uint32_t across = thread_index() % 16 * 4, down = thread_index() / 16;
    const uint32_t first = down / 8 * 32 + down % 8 * 2;
    const float* x = reinterpret_cast<const float*>(a) + first;
    const float* y = reinterpret_cast<const float*>(b) + across;
#pragma unroll 4
    for (uint32_t k = 0; k < 32; k++) {
      const float2 low = *reinterpret_cast<const float2*>(x + k * LD);
      const float2 high = *reinterpret_cast<const float2*>(x + k * LD + 16);
      const float4 columns = *reinterpret_cast<const float4*>(y + k * LD);
      const float row[4] = {low.x, low.y, high.x, high.y};
      const float column[4] = {columns.x, columns.y, columns.z, columns.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = fmaf(row[i], column[j], sum[i][j]);
      }
    }
  }

  HS_DEVICE void slab(uint32_t pass, float* slab) const {
    const uint32_t across = thread_index() % 16 * 4, down = thread_index() / 16;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
      const uint32_t r = down / 8 * 16 + down % 8 * 2 + i;
      float4* to = reinterpret_cast<float4*>(slab + r * Slab<64, BANDS>::LD + across);
      *to = pass == 0 ? float4{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}
                     : float4{sum[2 + i][0], sum[2 + i][1], sum[2 + i][2], sum[2 + i][3]};
    }
  }
};

}  // namespace hs
