// unpack: all tensors of a bucket in one launch: for each element i of a piece
//         tensor[i - offset] = type(factor · bucket[i]), the bucket being cut in shards of equal length;
//         bucket[i] may be in blocks of 8-bit integers;
//         and the piece's partial: Σ of squares, and count of non-finite, of its f32 products.
//
// `=`. Deterministic: the sum of squares has one order (fold.h). Each block takes whole pieces, of 16,384
// elements at most; those of tensors that nobody has are passed over.
// Limiter: memory. A bf16 wire to f32 gradients is 6 bytes an element: as pack, 0.40 ms for 94.4 M
// parameters on an A100-40. They are 211 tensors in 9 buckets of up to 25 MB: 9 launches of some
// 4 µs are 0.04 ms beside it, 211 would be 0.84 ms.
#pragma once
#include "fold.h"
#include "int8.h"

namespace hs {

HS_DEVICE void unpack(const Unpack& block) {
  HS_SHARED double lanes[FOLD_DOUBLES];
  HS_SHARED uint32_t bad_in_piece;
  for (uint64_t c = block_index(); c < block.count; c += block_count()) {
    const Unpack& p = reload(block);
    const uint64_t* shards = global<const uint64_t>(p.shards);
    const Piece piece = global<const Piece>(p.pieces)[c];
    const Target target = global<const Target>(p.targets)[piece.tensor];
    if (target.to == 0) continue;  // all threads alike
    if (thread_index() == 0) bad_in_piece = 0;  // only this thread has read it
    barrier();
    const uint64_t start = piece.start - target.offset;
    double lane[8] = {};
    uint32_t bad = 0;
    for (uint32_t i = 8 * thread_index(); i < piece.len; i += STRIP) {
      const uint32_t count = piece.len - i < 8 ? piece.len - i : 8u;
      float x[8];
      const uint64_t at = piece.start + i;
      const uint64_t shard = at / p.shard;
      const uint64_t within = at - shard * p.shard;
      const bool whole = p.wire != INT8 || (count == 8 && within % 8 == 0);
      if (whole && within + count <= p.shard) {
        load8_wire(x, shards[shard], within, count, p.wire);
      } else {  // across the border to the next shard, or inside blocks
#pragma unroll
        for (uint32_t e = 0; e < 8; e++) {
          const bool next = within + e >= p.shard;
          const uint64_t from = within + e - (next ? p.shard : 0);
          x[e] = e < count ? load1_wire(shards[shard + next], from, p.wire) : 0.0f;
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
      store8(x, target.to, start + i, count, p.gradient_type);
    }
    if (bad > 0) atomic_add_shared(&bad_in_piece, bad);
    const double sum = fold(lane, lanes, threads_of(piece.len));
    if (thread_index() == 0) {
      Partial* partial = global<Partial>(p.partials) + target.partial + start / CHUNK;
      partial->sum_squares = sum;
      partial->non_finite = bad_in_piece;
      partial->tensor = piece.tensor;
    }
  }
}

}  // namespace hs
