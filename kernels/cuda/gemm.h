// The main loop for aligned 16-bit operands, for sm_80 and newer: 128×128 tiles, k in steps of 32, eight waves of
// 64×32. Three stages of shared memory filled in the background (cp.async), so that two steps are under way
// while one is multiplied; operands stay as they are stored, and ldmatrix transposes what has to be.
//
// Needs of each operand an address, leading dimension and batch stride in multiples of 16 bytes. Sizes are any: a
// copy says how many of its bytes are there and fills up with zeros, so nothing behind an operand's rows is read,
// and tails of k add 0·0.
#pragma once
#include "gemm/operand.h"
#include "mma.h"

namespace hs {

HS_DEVICE void copy16(uint32_t to, uint64_t from, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
}
HS_DEVICE void copies_end() { asm volatile("cp.async.commit_group;" : : : "memory"); }
// All but the last `N` groups have arrived.
template <int N>
HS_DEVICE void copies_arrived() {
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED>
struct AlignedLoop {
  using Sums = MatrixSums<TYPE, 128, 128>;
  static constexpr uint32_t OPERAND = 128 * 64, STAGE = 2 * OPERAND, STAGES = 3;
  static constexpr uint32_t BYTES = STAGES * STAGE;  // 49,152: all there is without asking for more

  // One operand of this thread: two chunks of 16 bytes a step, half a tile apart.
  template <bool TOGETHER>
  struct Source {
    uint64_t from;         // of the first chunk of the next step
    uint64_t half, step;   // bytes to the second chunk, to the next step
    uint32_t to, to_half;  // in the stage
    uint32_t k;            // the chunk's first step of k
    uint32_t bytes[2];     // of each chunk that are there, as far as lanes go

    // `lane(i)`: where lane i of the tile is, and whether it is there.
    template <class Lane>
    HS_DEVICE void start(uint64_t base, uint64_t ld, Lane lane) {
      const uint32_t i = thread_index();
      bool there;
      if (TOGETHER) {  // [lane][k]: four chunks a lane, 64 lanes at once
        k = i % 4 * 8;
        const uint64_t first = lane(i / 4, there);
        bytes[0] = there ? 16 : 0;
        const uint64_t second = lane(i / 4 + 64, there);
        bytes[1] = there ? 16 : 0;
        from = base + (first * ld + k) * 2;
        half = (second - first) * ld * 2;
        step = 64;
        to = offset_together(i / 4, i % 4);
        to_half = OPERAND / 2;
      } else {  // [k][lane]: sixteen chunks a step of k, 16 steps at once
        k = i / 16;
        const uint64_t first = lane(i % 16 * 8, there);
        bytes[0] = bytes[1] = there ? 16 : 0;
        from = base + (k * ld + first) * 2;
        half = 16 * ld * 2;
        step = 32 * ld * 2;
        to = offset_across<128>(k, i % 16);
        to_half = 16 * 256;
      }
    }
    // `lanes`: how many of a chunk's eight lanes are there; for tiles stored [k][lane].
    HS_DEVICE void limit(uint64_t lanes) {
      if (!TOGETHER && bytes[0] != 0 && lanes < 8) bytes[0] = bytes[1] = 2 * static_cast<uint32_t>(lanes);
    }
    // The next step into a stage; `left` steps of k are there.
    HS_DEVICE void copy(uint32_t stage, uint32_t left) {
      uint32_t there[2];
      if (TOGETHER) {
        const uint32_t most = left <= k ? 0 : left - k < 8 ? 2 * (left - k) : 16;
        there[0] = bytes[0] < most ? bytes[0] : most;
        there[1] = bytes[1] < most ? bytes[1] : most;
      } else {
        there[0] = k < left ? bytes[0] : 0;
        there[1] = k + 16 < left ? bytes[1] : 0;
      }
      // An address is formed for what is not there too, but nothing is read from it.
      copy16(stage + to, from, there[0]);
      copy16(stage + to + to_half, from + half, there[1]);
      from += step;
    }
  };

  HS_DEVICE static void run(const Product& p, const Tile& t, Sums& sums, char* shared) {
    const uint32_t stages = shared_address(shared);
    Source<!A_TRANSPOSED> a;
    Source<B_TRANSPOSED> b;
    const uint64_t rows = t.m - t.row;
    a.start(like_a(p, t, p.a, p.lda, p.stride_a), p.lda, [&](uint32_t i, bool& there) {
      there = i < rows;
      return t.row + i;
    });
    a.limit(rows - thread_index() % 16 * 8);
    b.start(start_of_b(p, t), p.ldb,
            [&](uint32_t i, bool& there) { return column_of_b<128>(p, t, i, there); });
    const bool gated = (p.flags & GATED) != 0;
    const uint32_t column = thread_index() % 16 * 8;
    b.limit(p.n - (t.column + (gated ? column % 64 : column)));

    const uint32_t steps = tiles_of(t.k, 32);
    auto copy = [&](uint32_t s, uint32_t stage) {
      const uint64_t left = t.k - s * 32ull;
      const uint32_t count = s >= steps ? 0 : left < 32 ? static_cast<uint32_t>(left) : 32u;
      if (count > 0) {
        a.copy(stages + stage * STAGE, count);
        b.copy(stages + stage * STAGE + OPERAND, count);
      }
      copies_end();
    };
    copy(0, 0);
    copy(1, 1);
    uint32_t now = 0, next = 2;
#pragma unroll 1
    for (uint32_t s = 0; s < steps; s++) {
      copies_arrived<STAGES - 2>();
      barrier();  // everybody's part has arrived, and the stage before has been read
      copy(s + 2, next);
      sums.template multiply_as<!A_TRANSPOSED, B_TRANSPOSED>(stages + now * STAGE,
                                                             stages + now * STAGE + OPERAND);
      next = now;
      now = now + 1 == STAGES ? 0 : now + 1;
    }
    copies_arrived<0>();
  }
};

}  // namespace hs
