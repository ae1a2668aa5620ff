// prepare: what is made of A before the product, where A is the gradient of a layer's output:
//
//   fused_a = A∘act'(z), rounded and flushed, stored like A       (`=`)
//   a_sums[i] (+)= Σ_k A'[i,k], A' = fused_a as rounded           (only of a transposed A: [k,m])
//
// The product that follows then reads fused_a as its A, without a derivative in its loop. Sums of an A that is
// multiplied as it is are the product's own business: see column_sums.h.
//
// Deterministic. Limiter: memory. 8,192 × 3,072 of bf16, read twice and written once: 151 MB, 0.11 ms at 90 % of an
// A100-40's 1,555 GB/s, 0.12 ms at 80 % of an MI250X GCD's 1,638.
#pragma once
#include "gemm/column_sums.h"
#include "gemm/tile.h"
#include "walk.h"

namespace hs {

HS_DEVICE float prepared(const Product& p, uint64_t row, uint64_t column) {
  float x = load1(p.a, row * p.lda + column, p.input);
  if (p.role == ROLE_FUSED_A) {
    float slope = load1(p.z, row * p.ldz + column, p.input);
    switch (p.activation) {
      case ACTIVATION_NONE: slope = 1.0f; break;
      case RELU: slope = derivative<RELU>(slope); break;
      case GELU_TANH: slope = derivative<GELU_TANH>(slope); break;
      case GELU_ERF: slope = derivative<GELU_ERF>(slope); break;
      default: slope = derivative<SILU>(slope);
    }
    x = rounded(x * slope, p.input);
  }
  if ((p.flags & FLUSH) != 0) x = flushed(x, p.input);
  if (p.fused_a != 0) {
    const uint64_t at = p.fused_a + (row * p.ldf + column) * element_bytes(p.input);
    if (p.input == F32) store4(at, bits(x));
    else store2(at, p.input == BF16 ? narrow_bf16(x) : narrow_f16(x));
  }
  return x;
}

HS_DEVICE void prepare(const Product& block) {
  HS_SHARED StatisticsMemory shared;
  if (block.a_sums != 0) {
    const uint32_t strips = tiles_of(block.m, STRIP_COLUMNS);
#pragma unroll 1
    for (uint32_t strip = block_index(); strip < strips; strip += block_count()) {
      column_sums<THREADS, 4>(block, strip, reinterpret_cast<char*>(&shared), [](const Product& p, uint64_t row, uint64_t column) {
        return prepared(p, row, column);
      });
    }
    return;
  }
  const bool transposed = (block.flags & A_TRANSPOSED) != 0;
  const uint64_t columns = transposed ? block.m : block.k;  // as stored
  const uint64_t all = transposed ? block.k : block.m;
  uint64_t rows = block.groups > 0 ? 0 : all;  // those behind the last group are nobody's
  for (uint64_t g = 0; g < block.groups; g++) rows = group_end(block, g, rows, all);
  const uint32_t across = tiles_of(columns, STRIP_COLUMNS);
  constexpr uint32_t TURN = THREADS / STRIP_COLUMNS * SUM_BLOCK;  // rows of an item
#pragma unroll 1
  for (uint64_t item = block_index(); item < static_cast<uint64_t>(across) * tiles_of(rows, TURN); item += block_count()) {
    const Product& p = reload(block);
    const uint64_t column = item % across * STRIP_COLUMNS + thread_index() % STRIP_COLUMNS;
    const uint64_t from = item / across * TURN + thread_index() / STRIP_COLUMNS * SUM_BLOCK;
    const uint64_t to = from + SUM_BLOCK < rows ? from + SUM_BLOCK : rows;
    if (column >= columns) continue;
#pragma unroll 4
    for (uint64_t row = from; row < to; row++) prepared(p, row, column);
  }
}

}  // namespace hs
