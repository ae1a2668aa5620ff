// pack: bucket[offset + i] = wire(scale · (gradient[i] + accumulated[i])); accumulated[i] = 0;
//       *non_finite += how many results are NaN or infinite. The bucket is cut in shards of equal length.
//
// `=` for the bucket, `+=` for the counter (an integer: any order gives the same). Deterministic.
// Limiter: memory. f32 gradients to a bf16 wire are 6 bytes an element: 94.4 M parameters are
// 566 MB, 0.40 ms at 90 % of an A100-40's 1,555 GB/s, 0.43 ms at 80 % of an MI250X GCD's 1,638. Where
// they lie one after the other, a launch packs a whole bucket; else each costs one, which is
// longer than its bytes take below some 1 M elements (4 µs).
#pragma once
#include "storage.h"
#include "walk.h"

namespace hs {

HS_DEVICE void pack(const Pack& p) {
  uint32_t bad = 0;
  walk(p.len, [&](uint64_t i, uint32_t count) {
    float g[8] = {};  // an absent gradient is zeros
    if (p.gradient != 0) load8(g, p.gradient, i, count, p.gradient_type);
    if (p.accumulated != 0) {
      float sum[8];
      float zeros[8] = {};
      load8(sum, p.accumulated, i, count, F32);
      store8(zeros, p.accumulated, i, count, F32);
#pragma unroll
      for (int e = 0; e < 8; e++) g[e] = g[e] + sum[e];
    }
#pragma unroll
    for (int e = 0; e < 8; e++) g[e] = p.scale * g[e];
    const uint64_t at = p.offset + i;
    const uint64_t shard = at / p.shard;
    const uint64_t within = at - shard * p.shard;
    const uint64_t to = p.bucket + shard * p.stride;
    if (within + count <= p.shard) {
      store8(g, to, within, count, p.wire);
    } else {  // across the border to the next shard
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) {
        const bool next = within + e >= p.shard;
        if (e < count) {
          g[e] = store1(g[e], next ? to + p.stride : to, within + e - (next ? p.shard : 0), p.wire);
        }
      }
    }
#pragma unroll
    for (uint32_t e = 0; e < 8; e++) bad += e < count && non_finite(g[e]);
  });
  if (bad > 0) atomic_add(global<uint64_t>(p.non_finite), bad);
}

}  // namespace hs
