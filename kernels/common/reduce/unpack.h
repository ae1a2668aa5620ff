// unpack: to[i] = type(factor · bucket[offset + i]), the bucket being cut in shards of equal length;
//         partials[c] = Σ of squares, and count of non-finite, of chunk c's f32 products.
//
// `=`. Deterministic: the sum of squares has one order (fold.h). Each block takes whole chunks.
// Limiter: memory. A bf16 wire to f32 gradients is 6 bytes an element: as pack, 0.41 ms for 94.4 M
// parameters on an A100-40.
#pragma once
#include "fold.h"
#include "storage.h"

namespace hs {

HS_DEVICE void unpack(const Unpack& block) {
  HS_SHARED double lanes[FOLD_DOUBLES];
  HS_SHARED uint32_t bad_in_chunk;
  const uint64_t chunks = (block.len + CHUNK - 1) / CHUNK;
  for (uint64_t chunk = block_index(); chunk < chunks; chunk += block_count()) {
    const Unpack& p = reload(block);
    const uint64_t* shards = global<const uint64_t>(p.shards);
    if (thread_index() == 0) bad_in_chunk = 0;  // only this thread has read it
    barrier();
    const uint64_t end = p.len - chunk * CHUNK < CHUNK ? p.len : (chunk + 1) * CHUNK;
    double lane[8] = {};
    uint32_t bad = 0;
    for (uint64_t i = chunk * CHUNK + 8 * thread_index(); i < end; i += STRIP) {
      const uint32_t count = end - i < 8 ? static_cast<uint32_t>(end - i) : 8u;
      float x[8];
      const uint64_t at = p.offset + i;
      if (at / p.shard == (at + count - 1) / p.shard) {
        load8(x, shards[at / p.shard], at % p.shard, count, p.wire);
      } else {  // across the border of two shards
#pragma unroll
        for (uint32_t e = 0; e < 8; e++) {
          x[e] = e < count ? load1(shards[(at + e) / p.shard], (at + e) % p.shard, p.wire) : 0.0f;
        }
      }
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) {
        x[e] = p.factor * x[e];
        const bool finite = !non_finite(x[e]);
        const double wide = finite && e < count ? static_cast<double>(x[e]) : 0.0;
        lane[e] += wide * wide;  // exact: 24 bits squared
        bad += e < count && !finite;
      }
      store8(x, p.to, i, count, p.gradient_type);
    }
    if (bad > 0) atomic_add_shared(&bad_in_chunk, bad);
    const double sum = fold(lane, lanes, threads_of(end - chunk * CHUNK));
    if (thread_index() == 0) {
      Partial* partial = global<Partial>(p.partials) + chunk;
      partial->sum_squares = sum;
      partial->non_finite = bad_in_chunk;
      partial->tensor = p.tensor;
    }
  }
}

}  // namespace hs
