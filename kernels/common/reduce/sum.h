// sum: to[i] = type(factor · Σ_r weights[r] · parts[r][i]): w₀·x₀, then fma(w_r, x_r, s) for r
// ascending, all f32; one multiplication and one rounding at the end.
//
// Parts may be blocks of 8-bit integers. Deterministic, and the same on every rank. Limiter: memory, (ranks + 1) wire elements for one of
// the result: with 4 ranks and bf16, 10 bytes.
#pragma once
#include "int8.h"
#include "walk.h"

namespace hs {

HS_DEVICE void sum(const Sum& p) {
  const uint64_t* parts = global<const uint64_t>(p.parts);     // [ranks]
  const float* weights = global<const float>(p.weights);       // [ranks]
  walk(p.len, [&](uint64_t i, uint32_t count) {
    float s[8], x[8];
    load8_wire(x, parts[0], i, count, p.from_type);
#pragma unroll
    for (int e = 0; e < 8; e++) s[e] = weights[0] * x[e];
    for (uint32_t r = 1; r < p.ranks; r++) {
      load8_wire(x, parts[r], i, count, p.from_type);
#pragma unroll
      for (int e = 0; e < 8; e++) s[e] = fmaf(weights[r], x[e], s[e]);
    }
#pragma unroll
    for (int e = 0; e < 8; e++) s[e] = s[e] * p.factor;
    store8(s, p.to, i, count, p.to_type);
  });
}

}  // namespace hs
