// roof: the device's arithmetic at its fastest, f32 and bf16 by the matrix unit, from registers to registers.
// *multiply_adds += how many there were: everything is 1, so the sums say it.
//
// Limiter: the unit. A SIMD of gfx90a takes 32 cycles for v_mfma_f32_16x16x1 (1,024 multiply-adds of f32) and 64 for
// v_mfma_f32_32x32x8_bf16_1k (8,192), and starts the next when it has done one: 4 sums of each of 2 waves follow each
// other without waiting.
#pragma once
#include "mma.h"

namespace hs {

template <class Step>
HS_DEVICE void roof(const Roof& p, Step step) {
  constexpr int SUMS = 4;
  float16_t sum[SUMS];
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
#pragma unroll
    for (int e = 0; e < 16; e++) sum[i][e] = 0.0f;
  }
  for (uint64_t n = 0; n < p.steps; n++) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) sum[i] = step(sum[i]);
  }
  uint64_t all = 0;
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
#pragma unroll
    for (int e = 0; e < 16; e++) all += static_cast<uint64_t>(sum[i][e]);
  }
  atomic_add(global<uint64_t>(p.multiply_adds), all);
}

HS_DEVICE void roof_f32(const Roof& p) {
  const float one = p.one;
  roof(p, [&](float16_t sum) { return __builtin_amdgcn_mfma_f32_16x16x1f32(one, one, sum, 0, 0, 0); });
}

HS_DEVICE void roof_bf16(const Roof& p) {
  const int one = static_cast<int>(bits(p.one) >> 16), two = one << 16 | one;
  const int2_t ones = {two, two};
  roof(p, [&](float16_t sum) { return mma<BF16>(ones, ones, sum); });
}

}  // namespace hs
