// a_sums[i] (+)= Σ_k A[k,i] of an A that is stored [k,m], with what a product does to it on its way, in f32, rounded once to
// the output type: the gradient of a bias, where A is the gradient of a layer's output.
//
// Deterministic: a sum adds blocks of 256 steps, each from 0 in order, then the blocks in order, from 0, as
// src/gemm/reference.rs has it. A block of the device takes a strip of 32 columns, with blocks of steps side by side.
// Limiter: as part of a product, nothing: its blocks wait for the matrix unit, and read the same A. By itself memory.
#pragma once
#include "gemm/statistics.h"
#include "gemm/tile.h"
#include "walk.h"

namespace hs {

constexpr uint32_t STRIP_COLUMNS = 32;
constexpr uint32_t SUM_BLOCK = 256;  // steps

// One strip, for all groups: each has sums of its own. `read` gives an element of row k and column i; a thread asks for
// TOGETHER of them at a time. `shared` has a float for each thread of the TEAM, and by turns StatisticsMemory.
template <uint32_t TEAM, int TOGETHER, class Read>
HS_DEVICE void column_sums(const Product& block, uint32_t strip, char* shared, Read read) {
  float* block_sums = reinterpret_cast<float*>(shared);  // a thread's each
  constexpr uint32_t SIDE = TEAM / STRIP_COLUMNS;  // blocks of steps at once
  const uint64_t first = static_cast<uint64_t>(strip) * STRIP_COLUMNS, column = first + thread_index() % STRIP_COLUMNS;
  const uint32_t side = thread_index() / STRIP_COLUMNS;
  const uint64_t members = block.groups > 0 ? block.groups : 1;
  uint64_t start = 0;
#pragma unroll 1
  for (uint64_t g = 0; g < members; g++) {
    const Product& p = reload(block);
    const uint64_t end = p.groups > 0 ? group_end(p, g, start, p.k) : p.k;
    float total = 0.0f;
#pragma unroll 1
    for (uint64_t round = start; round < end; round += SIDE * SUM_BLOCK) {
      const uint64_t from = round + side * SUM_BLOCK;
      const uint64_t to = from + SUM_BLOCK < end ? from + SUM_BLOCK : end;
      float sum = 0.0f;
      if (column < p.m) {
#pragma unroll TOGETHER
        for (uint64_t row = from; row < to; row++) sum += read(p, row, column);
      }
      block_sums[thread_index()] = sum;
      barrier();
      if (side == 0) {
        for (uint32_t b = 0; b < SIDE && round + b * SUM_BLOCK < end; b++) {
          total += block_sums[b * STRIP_COLUMNS + thread_index()];
        }
      }
      barrier();
    }
    if (side == 0 && column < p.m) {
      const uint64_t at = g * p.m + column;
      if ((p.flags & ADD_A_SUMS) != 0) total = load1(p.a_sums, at, p.output) + total;
      store1_result(total, p.a_sums, at, p.output, (p.flags & FLUSH) != 0);
    }
    if (p.a_sums_partials != 0) {
      const uint32_t columns = static_cast<uint32_t>(p.m - first < STRIP_COLUMNS ? p.m - first : STRIP_COLUMNS);
      stretches_stored<TEAM>(
          statistics_of_sums(p), 1, [&](uint32_t) { return Stretch{g * p.m + first, columns}; },
          *reinterpret_cast<StatisticsMemory*>(shared));
      barrier();  // its memory is the next sums'
    }
    start = end;
  }
}

// The first blocks of a product take the strips, if they are asked for, while others multiply. Returns which tile the
// block begins with. TYPE is what elements are when they are multiplied: bf16 may be f16 in memory.
template <uint32_t TYPE, uint32_t TEAM>
HS_DEVICE uint32_t sums_beside(const Product& block, char* shared) {
  const uint32_t strips = block.a_sums != 0 ? tiles_of(block.m, STRIP_COLUMNS) : 0;
  uint32_t index = block_index();
#pragma unroll 1
  for (; index < strips; index += block_count()) {
    column_sums<TEAM, 8>(block, index, shared, [](const Product& p, uint64_t row, uint64_t column) {
      const uint32_t stored = TYPE == BF16 ? p.input : TYPE;
      const float x = load1(p.a, row * p.lda + column, stored);
      return (p.flags & FLUSH) != 0 ? flushed(x, stored) : x;
    });
  }
  return index - strips;
}

}  // namespace hs
