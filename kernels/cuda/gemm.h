// The main loop for aligned 16-bit operands, for sm_80 and newer: 128×128 tiles, k in steps of 32, four waves of
// 64×64. Three stages of shared memory filled in the background (cp.async), so that two steps are under way
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

  // One operand of this thread: `COUNT` chunks of 16 bytes a step.
  template <bool TOGETHER>
  struct Source {
    static constexpr uint32_t COUNT = 128 * 4 / Sums::THREADS;
    static constexpr uint32_t APART = TOGETHER ? Sums::THREADS / 4 : 32 / COUNT;  // lanes, or steps of k, between two

    uint64_t from;         // of the first chunk of the next step
    uint64_t near, half;   // bytes to the next chunk, and from the tile's first half to its second
    uint64_t step;         // bytes to the next step of the loop
    uint32_t to;           // in the stage
    uint32_t k;            // the first chunk's first step of k
    uint32_t bytes[COUNT]; // of each chunk that are there, as far as lanes go

    // `lane(i)`: where lane i of the tile is, and whether it is there.
    template <class Lane>
    HS_DEVICE void start(uint64_t base, uint64_t ld, Lane lane) {
      const uint32_t i = thread_index();
      bool there;
      near = APART * ld * 2;
      if (TOGETHER) {  // [lane][k]: four chunks a lane
        k = i % 4 * 8;
        const uint64_t first = lane(i / 4, there);
        half = (lane(i / 4 + 64, there) - first) * ld * 2;
#pragma unroll
        for (uint32_t c = 0; c < COUNT; c++) {
          lane(i / 4 + APART * c, there);
          bytes[c] = there ? 16 : 0;
        }
        from = base + (first * ld + k) * 2;
        step = 64;
        to = offset_together(i / 4, i % 4);
      } else {  // [k][lane]: sixteen chunks a step of k
        k = i / 16;
        const uint64_t first = lane(i % 16 * 8, there);
#pragma unroll
        for (uint32_t c = 0; c < COUNT; c++) bytes[c] = there ? 16 : 0;
        half = COUNT / 2 * near;
        from = base + (k * ld + first) * 2;
        step = 32 * ld * 2;
        to = offset_across<128>(k, i % 16);
      }
    }
    // `lanes`: how many of a chunk's eight lanes are there; for tiles stored [k][lane].
    HS_DEVICE void limit(uint64_t lanes) {
      if (TOGETHER || bytes[0] == 0 || lanes >= 8) return;
#pragma unroll
      for (uint32_t c = 0; c < COUNT; c++) bytes[c] = 2 * static_cast<uint32_t>(lanes);
    }
    // The next step into a stage; `left` steps of k are there.
    HS_DEVICE void copy(uint32_t stage, uint32_t left) {
      const uint32_t most = left <= k ? 0 : left - k < 8 ? 2 * (left - k) : 16;
#pragma unroll
      for (uint32_t c = 0; c < COUNT; c++) {
        uint32_t there = TOGETHER ? most : k + APART * c < left ? 16 : 0;
        if (bytes[c] < there) there = bytes[c];
        // An address is formed for what is not there too, but nothing is read from it. APART lanes or steps are a
        // multiple of what chunks are exchanged by.
        const uint64_t far = c % (COUNT / 2) * near + (c < COUNT / 2 ? 0 : half);
        copy16(stage + to + c * (OPERAND / COUNT), from + far, there);
      }
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
