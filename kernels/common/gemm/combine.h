// combine: D = epilogue(Σ_s workspace[s]), the sums of the parts that k was split in: see result.h for the formula.
//
// `=`, or in place where the epilogue says so. Deterministic: parts are added in order, from the first.
// Limiter: memory, 4 bytes an element and part, and the epilogue's own: the weight gradient of 768 × 768 in 8 parts
// is 21 MB, 0.015 ms at 90 % of an A100-40's 1,555 GB/s, 0.016 ms at 80 % of an MI250X GCD's 1,638; less where the
// parts are still in the second cache.
#pragma once
#include "gemm/epilogue.h"
#include "gemm/statistics.h"

namespace hs {

// Eight sums side by side, or one below the other.
HS_DEVICE void parts8(float (&v)[8], const Product& p, uint64_t i, uint64_t j, uint32_t count) {
  load8_f32(v, p.workspace, of_part(p, 0, i, j), count);
#pragma unroll 1
  for (uint32_t s = 1; s < p.splits; s++) {
    float part[8];
    load8_f32(part, p.workspace, of_part(p, s, i, j), count);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] += part[e];
  }
}
HS_DEVICE void parts8_below(float (&v)[8], const Product& p, uint64_t i, uint64_t j, uint32_t count) {
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    v[e] = 0.0f;
    if (e >= count) continue;
    auto part = [&](uint32_t s) { return from_bits(load4(p.workspace + 4 * of_part(p, s, i + e, j))); };
    v[e] = part(0);
#pragma unroll 1
    for (uint32_t s = 1; s < p.splits; s++) v[e] += part(s);
  }
}

// What thread `q` has stored of a D stored [n,m]: eight rows of one of its columns.
HS_DEVICE Stretch eight_below(const Product& p, uint64_t q) {
  const uint64_t i = q / p.n * 8;
  return {q % p.n * p.m + i, at_most_8(p.m - i)};
}
// And what threads `from` to `to` have of a D stored [m,n]: their eights are side by side, row after row.
HS_DEVICE Stretch eights_beside(const Product& p, uint64_t from, uint64_t to) {
  const uint64_t eights = (p.n + 7) / 8;
  auto start = [&](uint64_t q) { return q / eights * p.n + q % eights * 8; };
  return {start(from), static_cast<uint32_t>(start(to) - start(from))};
}

HS_DEVICE void combine(const Product& block) {
  HS_SHARED StatisticsMemory memory;
  const bool transposed = (block.flags & D_TRANSPOSED) != 0;
  const uint64_t eights = transposed ? (block.m + 7) / 8 : (block.n + 7) / 8;
  const uint64_t all = transposed ? eights * block.n : block.m * eights;
  Tile t = {};
#pragma unroll 1
  for (uint64_t from = block_index() * THREADS; from < all; from += static_cast<uint64_t>(block_count()) * THREADS) {
    const Product& p = reload(block);
    const uint64_t q = from + thread_index(), to = from + THREADS < all ? from + THREADS : all;
    float v[8];
    if (q >= to) {
      // None for this thread, which meets the others below.
    } else if (transposed) {
      const uint64_t i = q / p.n * 8, j = q % p.n;
      parts8_below(v, p, i, j, at_most_8(p.m - i));
      result8_transposed(p, t, v, i, j, at_most_8(p.m - i));
    } else {
      const uint64_t i = q / eights, j = q % eights * 8;
      const uint32_t count = at_most_8(p.n - j);
      parts8(v, p, i, j, count);
      result8(p, t, v, [&](float (&up)[8]) { parts8(up, p, i, p.n + j, count); }, i, j, count);
    }
    if (p.partials == 0) continue;
    stretches_stored<THREADS>(
        statistics_of_d(p), transposed ? static_cast<uint32_t>(to - from) : 1,
        [&](uint32_t r) { return transposed ? eight_below(p, from + r) : eights_beside(p, from, to); }, memory);
  }
}

}  // namespace hs
