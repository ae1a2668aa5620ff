// roof: the device's arithmetic at its fastest, f32 by the vector units and bf16 by the matrix unit, from registers to
// registers. *multiply_adds += how many there were: everything is 1, so the sums say it.
//
// Limiter: the unit. A multiprocessor of sm_80 starts 64 f32 multiply-adds of 4 cycles in a cycle: 16 sums of each of 512
// threads are 32 times as many as that needs. It has 1,024 of 16 bits: an mma (2,048) every two cycles of some 30; 8 sums
// of each of 16 waves are 8 times as many.
#pragma once
#include "mma.h"

namespace hs {

HS_DEVICE void roof_f32(const Roof& p) {
  constexpr int SUMS = 16;
  float sum[SUMS];
#pragma unroll
  for (int i = 0; i < SUMS; i++) sum[i] = 0.0f;
  for (uint64_t step = 0; step < p.steps; step++) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) sum[i] = fmaf(p.one, p.one, sum[i]);
  }
  uint64_t all = 0;
#pragma unroll
  for (int i = 0; i < SUMS; i++) all += static_cast<uint64_t>(sum[i]);
  atomic_add(global<uint64_t>(p.multiply_adds), all);
}

HS_DEVICE void roof_bf16(const Roof& p) {
  constexpr int SUMS = 8;  // of 16×8, 16 steps of k at once
  const uint32_t one = bits(p.one) >> 16, ones = one << 16 | one;
  const uint32_t a[4] = {ones, ones, ones, ones};
  float sum[SUMS][4];
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
#pragma unroll
    for (int e = 0; e < 4; e++) sum[i][e] = 0.0f;
  }
  for (uint64_t step = 0; step < p.steps; step++) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) mma<BF16>(sum[i], a, ones, ones);
  }
  uint64_t all = 0;
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
#pragma unroll
    for (int e = 0; e < 4; e++) all += static_cast<uint64_t>(sum[i][e]);
  }
  atomic_add(global<uint64_t>(p.multiply_adds), all);
}

}  // namespace hs
