// f32 products for gfx90a, on the matrix unit: each sum is one chain of fused multiply-adds over k in ascending order,
// so that the CPU's bits come out.
//
// v_mfma_f32_16x16x1 has one step of k, four products of 16×16, and the rate of the forms with more steps, whose order
// is the hardware's affair. It rounds as fmaf does, to nearest even, and keeps subnormals (MMA-Sim, arXiv 2511.10909,
// found so on CDNA 1 to 3; only the 16-bit forms of MI200 flush). A wave takes all 64 rows and 16 columns, and has them
// transposed, as four products of 16 columns by 16 rows: then four registers of a lane are columns side by side.
//
// The first factor's register has columns, lane 16·j + column, for four steps 4·j + r of the sixteen of a group;
// CBSZ lets all four products have those of step j (ABID). The second factor's has 64 rows of one step. So 16
// instructions, 512 cycles, take one read of B and four of A, 16 bytes a lane each: 40 of the 128 bytes that LDS gives
// in a cycle.
#pragma once
#include "gemm/epilogue.h"

namespace hs {

typedef float f32x4_t __attribute__((ext_vector_type(4)));
typedef float f32x16_t __attribute__((ext_vector_type(16)));

struct F32Sums {
  static constexpr uint32_t THREADS = 256;
  static constexpr uint32_t BANDS = 4;  // of rows; each wave has a part of all
  static constexpr uint32_t OPERAND_BYTES = 64 * 32 * 4;
  f32x16_t sum;  // [16 rows][column of four]

  HS_DEVICE void clear() {
#pragma unroll
    for (int e = 0; e < 16; e++) sum[e] = 0.0f;
  }

  // Byte offset of four steps of k (16 bytes) of a lane, stored [fours][lane]: exchanged so that what lanes write side
  // by side, two lanes' chunks, and what they read, eight lanes' same fours, is on different banks.
  HS_DEVICE static uint32_t offset(uint32_t four, uint32_t lane) { return (four * 64 + (lane ^ (four & 6))) * 16; }

  HS_DEVICE static void store(char* to, uint32_t chunk, uint32_t lane, const float (&x)[8]) {
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
      *reinterpret_cast<f32x4_t*>(to + offset(2 * chunk + h, lane)) =
          f32x4_t{x[4 * h], x[4 * h + 1], x[4 * h + 2], x[4 * h + 3]};
    }
  }

  HS_DEVICE static uint32_t first_column() { return thread_index() / 64 * 16; }

  // The next step of k: four products of 16 columns by 16 rows.
  template <int STEP_OF_COLUMNS>
  HS_DEVICE void mma(float columns, float rows) {
    sum = __builtin_amdgcn_mfma_f32_16x16x1f32(columns, rows, sum, 2, STEP_OF_COLUMNS, 0);
  }

  // One step of 32.
  HS_DEVICE void multiply(const char* a, const char* b) {
    const uint32_t lane = thread_index() % 64;
#pragma unroll
    for (uint32_t group = 0; group < 2; group++) {
      const auto read = [&](const char* from, uint32_t four, uint32_t of) {
        return *reinterpret_cast<const f32x4_t*>(from + offset(4 * group + four, of));
      };
      const f32x4_t columns = read(b, lane / 16, first_column() + lane % 16);
      f32x4_t rows[4];
#pragma unroll
      for (uint32_t j = 0; j < 4; j++) rows[j] = read(a, j, lane);
#pragma unroll
      for (int r = 0; r < 4; r++) mma<0>(columns[r], rows[0][r]);
#pragma unroll
      for (int r = 0; r < 4; r++) mma<1>(columns[r], rows[1][r]);
#pragma unroll
      for (int r = 0; r < 4; r++) mma<2>(columns[r], rows[2][r]);
#pragma unroll
      for (int r = 0; r < 4; r++) mma<3>(columns[r], rows[3][r]);
    }
  }

  // All of it is one slab: 64 rows.
  HS_DEVICE void slab(uint32_t, float* slab) const {
    const uint32_t lane = thread_index() % 64;
    float* to = slab + lane % 16 * Slab<64, BANDS>::LD + first_column() + lane / 16 * 4;
#pragma unroll
    for (uint32_t band = 0; band < 4; band++) {
      *reinterpret_cast<f32x4_t*>(to + 16 * band * Slab<64, BANDS>::LD) =
          f32x4_t{sum[4 * band], sum[4 * band + 1], sum[4 * band + 2], sum[4 * band + 3]};
    }
  }
};

}  // namespace hs
