// Statistics of a finished weight gradient D (dense), and of finished sums of A, as they are stored, in the launch that
// stores them:
//
//   partials[c] = Σ d² and how many d are not finite, over chunk c
//
// `=`. Deterministic: the sum has one order (fold.h), over chunks of memory, of which a tile of D has pieces only. So
// whoever stores a piece adds its length to the chunk's count, and who makes a count full has the chunk to sum: which
// block that is is chance, what it finds is not. Nobody waits for anybody. A count is 0 again after its chunk.
//
// Limiter: the second cache, where what has just been stored still is: 64 KiB a chunk, of the 3,072 × 768 of a layer 144
// chunks, two for each of an A100's multiprocessors. Otherwise it would be memory, and a launch more.
#pragma once
#include "fold.h"
#include "gemm/tile.h"

namespace hs {

// Of what, and where to.
struct Statistics {
  uint64_t partials, counts;
  uint64_t values, len;
  uint32_t type;  // of the values
  uint32_t tensor;
};

HS_DEVICE uint64_t members_of(const Product& p) { return p.groups > 0 ? p.groups : 1; }

HS_DEVICE Statistics statistics_of_d(const Product& p) {
  return {p.partials, p.counts, p.d, members_of(p) * p.m * p.n, p.output, p.tensor};
}
HS_DEVICE Statistics statistics_of_sums(const Product& p) {
  return {p.a_sums_partials, p.a_sums_counts, p.a_sums, members_of(p) * p.m, p.output, p.a_sums_tensor};
}

// What a block has stored: elements side by side, at most a chunk's.
struct Stretch {
  uint64_t first;
  uint32_t len;
};

constexpr uint32_t MOST_STRETCHES = 256;

struct StatisticsMemory {
  double lanes[FOLD_DOUBLES];
  uint64_t chunks[2 * MOST_STRETCHES];  // that this block has made full: a stretch has elements of two at most
  uint32_t full, bad;
};

// One chunk, whose values all threads see. THREADS have eight lanes each of its sum, of which one of half as many takes
// two's.
template <uint32_t TEAM>
HS_DEVICE void sum_chunk(const Statistics& s, uint64_t c, StatisticsMemory& memory) {
  static_assert(TEAM == THREADS || 2 * TEAM == THREADS, "one thread's lanes or two's");
  const uint64_t first = c * CHUNK, left = s.len - first;
  const uint32_t len = static_cast<uint32_t>(left < CHUNK ? left : CHUNK);
  if (thread_index() == 0) memory.bad = 0;  // only this thread has read it
  barrier();
  uint32_t bad = 0;
  auto add = [&](double (&lane)[8], uint32_t thread) {
#pragma unroll 1
    for (uint32_t i = 8 * thread; i < len; i += STRIP) {
      float g[8];
      const uint32_t count = len - i < 8 ? len - i : 8;
      load8(g, s.values, first + i, count, s.type);
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) {
        const bool finite = !non_finite(g[e]);
        const double wide = finite && e < count ? static_cast<double>(g[e]) : 0.0;
        lane[e] += wide * wide;  // exact: 24 bits squared
        bad += e < count && !finite;
      }
    }
  };
  double lane[8] = {};
  add(lane, thread_index());
  if constexpr (TEAM < THREADS) {
    double upper[8] = {};
    add(upper, thread_index() + TEAM);
#pragma unroll
    for (uint32_t e = 0; e < 8; e++) lane[e] += upper[e];  // the first of fold's halves
  }
  if (bad > 0) atomic_add_shared(&memory.bad, bad);
  const uint32_t threads = threads_of(len);
  const double sum = fold(lane, memory.lanes, threads < TEAM ? threads : TEAM);
  if (thread_index() == 0) {
    Partial* partial = global<Partial>(s.partials) + c;
    partial->sum_squares = sum;
    partial->non_finite = memory.bad;
    partial->tensor = s.tensor;
    atomic_add(global<uint32_t>(s.counts) + c, 0u - len);
  }
}

// Counts what all threads of a block have stored, `count` stretches, at most MOST_STRETCHES, and sums chunks that are
// full. All of them come here. `memory` is free before, and when they meet next.
template <uint32_t TEAM, class StretchOf>
HS_DEVICE void stretches_stored(const Statistics& s, uint32_t count, StretchOf stretch_of, StatisticsMemory& memory) {
  publish_block();
  if (thread_index() == 0) memory.full = 0;
  barrier();
#pragma unroll 1
  for (uint32_t r = thread_index(); r < count; r += TEAM) {
    const Stretch stretch = stretch_of(r);
    uint64_t at = stretch.first;
    const uint64_t end = at + stretch.len;
#pragma unroll 1
    while (at < end) {
      const uint64_t c = at / CHUNK, behind = (c + 1) * CHUNK;
      const uint64_t chunk_end = behind < s.len ? behind : s.len, to = end < chunk_end ? end : chunk_end;
      const uint32_t all = static_cast<uint32_t>(chunk_end - c * CHUNK), more = static_cast<uint32_t>(to - at);
      if (atomic_add(global<uint32_t>(s.counts) + c, more) + more == all) {
        memory.chunks[atomic_add_shared(&memory.full, 1)] = c;
      }
      at = to;
    }
  }
  see_published();
#pragma unroll 1
  for (uint32_t i = 0; i < memory.full; i++) sum_chunk<TEAM>(s, memory.chunks[i], memory);
}

// The same of a tile of D. (Parts of k are another launch's to finish.)
template <uint32_t TM, uint32_t TN, uint32_t TEAM>
HS_DEVICE void tile_stored(const Product& p, const Tile& t, char* shared) {
  static_assert(TM <= MOST_STRETCHES && TN <= MOST_STRETCHES, "a row or a column of a tile is a stretch");
  if (p.partials == 0 || p.workspace != 0) return;
  const uint64_t below = t.m - t.row, right = p.n - t.column;
  const uint32_t rows = static_cast<uint32_t>(below < TM ? below : TM);
  const uint32_t columns = static_cast<uint32_t>(right < TN ? right : TN);
  const bool transposed = (p.flags & D_TRANSPOSED) != 0;
  const uint64_t across = transposed ? t.row : t.column, down = transposed ? t.column : t.row;
  const uint64_t first = t.member * p.stride_d + down * p.ldd + across;
  stretches_stored<TEAM>(
      statistics_of_d(p), transposed ? columns : rows,
      [&](uint32_t r) { return Stretch{first + r * p.ldd, transposed ? rows : columns}; },
      *reinterpret_cast<StatisticsMemory*>(shared));
}

}  // namespace hs
