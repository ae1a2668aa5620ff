// 16-bit tiles in shared memory, their fragments, and the matrix unit's steps, for gfx90a.
//
// v_mfma_f32_32x32x8: lane l holds of A row l % 32, and of B column l % 32, steps 4·(l / 32) … + 3; of the sums,
// register r is row 8·(r / 4) + 4·(l / 32) + r % 4, column l % 32. A lane reads eight steps of k at once and
// feeds four to one instruction and four to the next: A and B permute k alike, the sum is the same.
// Only the `_1k` forms of bf16: the others run at half the rate.
#pragma once
#include "gemm/epilogue.h"

namespace hs {

typedef short short4_t __attribute__((ext_vector_type(4)));
typedef _Float16 half4_t __attribute__((ext_vector_type(4)));
typedef int int2_t __attribute__((ext_vector_type(2)));
typedef int int4_t __attribute__((ext_vector_type(4)));
typedef float float16_t __attribute__((ext_vector_type(16)));

// c += a·b: 32×32, 8 steps of k.
template <uint32_t TYPE>
HS_DEVICE float16_t mma(int2_t a, int2_t b, float16_t c) {
  if constexpr (TYPE == BF16) {
    return __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(__builtin_bit_cast(short4_t, a),
                                                    __builtin_bit_cast(short4_t, b), c, 0, 0, 0);
  } else {
    return __builtin_amdgcn_mfma_f32_32x32x8f16(__builtin_bit_cast(half4_t, a),
                                                __builtin_bit_cast(half4_t, b), c, 0, 0, 0);
  }
}

// Byte offset of a chunk (eight steps of k, 16 bytes) of a tile stored [chunk][lane]: exchanged so that what
// lanes write side by side, and read side by side, is on different banks.
template <uint32_t LANES>
HS_DEVICE uint32_t chunk_offset(uint32_t chunk, uint32_t lane) {
  return (chunk * LANES + (lane ^ ((lane >> 3) & 3) ^ ((chunk & 3) << 1))) * 16;
}

// The sums of a TM×TN tile in four waves: two down, two across.
template <uint32_t TYPE, uint32_t TM, uint32_t TN>
struct MatrixSums {
  static constexpr uint32_t THREADS = 4 * WAVE;
  static constexpr uint32_t BANDS = 2;  // of rows
  static constexpr uint32_t OPERAND_BYTES = TM * 64;
  static constexpr uint32_t DOWN = TM / 64, ACROSS = TN / 64;  // 32×32 products of a wave
  float16_t sum[DOWN][ACROSS];

  HS_DEVICE static uint32_t wave() { return __builtin_amdgcn_readfirstlane(thread_index() / 64); }
  HS_DEVICE static uint32_t first_row() { return wave() % 2 * (TM / 2); }
  HS_DEVICE static uint32_t first_column() { return wave() / 2 * (TN / 2); }

  HS_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < DOWN; i++) {
#pragma unroll
      for (int j = 0; j < ACROSS; j++) {
#pragma unroll
        for (int e = 0; e < 16; e++) sum[i][j][e] = 0.0f;
      }
    }
    stay();
  }

  // The sums of 256×256 fill all accumulation registers of a lane. Left to themselves compilers copy them to others on
  // the way in and out of a loop, where there is no room for both: through memory.
  static constexpr bool FULL = DOWN * ACROSS == 16;
  HS_DEVICE void stay() {
#pragma unroll
    for (uint32_t i = 0; i < DOWN; i++) {
#pragma unroll
      for (uint32_t j = 0; j < ACROSS; j++) {
        if constexpr (FULL) asm volatile("" : "+a"(sum[i][j]));
      }
    }
  }

  HS_DEVICE static void store(char* to, uint32_t chunk, uint32_t lane, const uint16_t (&x)[8]) {
    int4_t words;
#pragma unroll
    for (int w = 0; w < 4; w++) words[w] = x[2 * w] | static_cast<uint32_t>(x[2 * w + 1]) << 16;
    *reinterpret_cast<int4_t*>(to + chunk_offset<TM>(chunk, lane)) = words;
  }

  // One step of 32.
  HS_DEVICE void multiply(const char* a, const char* b) {
    const uint32_t lane = thread_index() % 32, half = thread_index() % 64 / 32;
#pragma unroll
    for (uint32_t group = 0; group < 2; group++) {
      int4_t fa[DOWN], fb[ACROSS];
#pragma unroll
      for (uint32_t i = 0; i < DOWN; i++) {
        const uint32_t at = chunk_offset<TM>(2 * group + half, first_row() + 32 * i + lane);
        fa[i] = *reinterpret_cast<const int4_t*>(a + at);
      }
#pragma unroll
      for (uint32_t j = 0; j < ACROSS; j++) {
        const uint32_t at = chunk_offset<TN>(2 * group + half, first_column() + 32 * j + lane);
        fb[j] = *reinterpret_cast<const int4_t*>(b + at);
      }
#pragma unroll
      for (uint32_t s = 0; s < 2; s++) {
#pragma unroll
        for (uint32_t i = 0; i < DOWN; i++) {
#pragma unroll
          for (uint32_t j = 0; j < ACROSS; j++) {
            sum[i][j] = mma<TYPE>(int2_t{fa[i][2 * s], fa[i][2 * s + 1]},
                                  int2_t{fb[j][2 * s], fb[j][2 * s + 1]}, sum[i][j]);
          }
        }
      }
    }
  }

  HS_DEVICE void slab(uint32_t pass, float* slab) const {
    const uint32_t l = again(thread_index()) % 64, lane = l % 32, half = l / 32;
    float* to = slab + (first_row() / (TM / 2) * 16 + 4 * half) * Slab<TN, BANDS>::LD + first_column() + lane;
#pragma unroll
    for (uint32_t j = 0; j < ACROSS; j++) {
      float16_t some = sum[pass / 2][j];
      if constexpr (FULL) asm volatile("" : "+v"(some));  // copied here, and not all of them at the loop's end
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) {  // registers 0 … 7 or 8 … 15: 16 rows
        to[(8 * (e / 4) + e % 4) * Slab<TN, BANDS>::LD + 32 * j] = some[pass % 2 * 8 + e];
      }
    }
  }
};

}  // namespace hs
