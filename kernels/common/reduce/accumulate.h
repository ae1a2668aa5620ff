// accumulate: accumulated[i] += gradient[i], in f32.
//
// Deterministic. Limiter: memory, 10 bytes an element for bf16 gradients.
#pragma once
#include "storage.h"
#include "walk.h"

namespace hs {

HS_DEVICE void accumulate(const Accumulate& p) {
  walk(p.len, [&](uint64_t i, uint32_t count) {
    float g[8], sum[8];
    load8(g, p.gradient, i, count, p.gradient_type);
    load8(sum, p.accumulated, i, count, F32);
#pragma unroll
    for (int e = 0; e < 8; e++) sum[e] = sum[e] + g[e];
    store8(sum, p.accumulated, i, count, F32);
  });
}

}  // namespace hs
