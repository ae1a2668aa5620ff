// prepare: what is asked of A besides the product, where A is the gradient of a layer's output:
//
//   fused_a = A∘act'(z), rounded and flushed, stored like A       (`=`)
//   a_sums[i] (+)= Σ_k A'[i,k], A' = fused_a as rounded           (only of a transposed A: [k,m])
//
// The product that follows then reads fused_a as its A, without a derivative in its loop.
//
// Deterministic: a sum adds blocks of 256 steps, each from 0 in order, then the blocks in order, from 0,
// as src/gemm/reference.rs has it. 32 columns a block, eight blocks of steps side by side.
// Limiter: memory. 8,192 × 3,072 of bf16, read twice and written once: 151 MB, 0.11 ms at 90 % of an A100-40's
// 1,555 GB/s, 0.12 ms at 80 % of an MI250X GCD's 1,638.
#pragma once
#include "gemm/tile.h"
#include "walk.h"

namespace hs {

constexpr uint32_t COLUMNS = 32;
constexpr uint32_t SIDE = THREADS / COLUMNS;  // blocks of steps at once
constexpr uint32_t SUM_BLOCK = 256;           // steps

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
  HS_SHARED float block_sum[THREADS];  // [SIDE][COLUMNS]
  const bool transposed = (block.flags & 1) != 0;
  const uint64_t columns = transposed ? block.m : block.k;  // as stored
  const uint64_t all = transposed ? block.k : block.m;
  const uint32_t across = tiles_of(columns, COLUMNS);
  // Groups cut the stored rows, whichever they are called. Each is a member of its own where it is summed;
  // rows behind the last group are nobody's.
  const uint64_t members = block.groups > 0 ? block.groups : 1;
  const uint32_t side = thread_index() / COLUMNS;
  // A sum has one block; without sums, blocks share the columns' rounds of 2,048 rows.
  const bool sums = block.a_sums != 0;
  const uint64_t round_rows = SIDE * SUM_BLOCK, rounds = (all + round_rows - 1) / round_rows;
  const uint64_t turns = sums || rounds == 0 ? 1 : rounds;
#pragma unroll 1
  for (uint64_t item = block_index(); item < turns * across; item += block_count()) {
    const uint64_t column = item % across * COLUMNS + thread_index() % COLUMNS;
    const uint64_t turn = item / across;
    uint64_t start = 0;
    for (uint64_t g = 0; g < members; g++) {
      const Product& p = reload(block);
      const uint64_t end = p.groups > 0 ? group_end(p, g, start, all) : all;
      float total = 0.0f;
      for (uint64_t round = start + turn * round_rows; round < end; round += turns * round_rows) {
        const uint64_t from = round + side * SUM_BLOCK;
        const uint64_t to = from + SUM_BLOCK < end ? from + SUM_BLOCK : end;
        float sum = 0.0f;
        if (column < columns) {
#pragma unroll 4
          for (uint64_t row = from; row < to; row++) sum += prepared(p, row, column);
        }
        if (!sums) continue;
        block_sum[thread_index()] = sum;
        barrier();
        if (side == 0) {
          for (uint32_t b = 0; b < SIDE && round + b * SUM_BLOCK < end; b++) {
            total += block_sum[b * COLUMNS + thread_index()];
          }
        }
        barrier();
      }
      if (sums && side == 0 && column < columns) {
        const uint64_t at = p.a_sums + 4 * (((p.flags & GROUPS_CUT_K) != 0 ? g * p.m : 0) + column);
        const float old = (p.flags & ADD_A_SUMS) != 0 ? from_bits(load4(at)) : 0.0f;
        store4(at, bits((p.flags & ADD_A_SUMS) != 0 ? old + total : total));
      }
      start = end;
    }
  }
}

}  // namespace hs
