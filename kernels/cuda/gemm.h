// The main loop for aligned 16-bit operands, for sm_80 and newer: tiles of waves of 64×64 (of 32×32 where the tile has
// 64×64), k in steps of 32, of which a stage of tiles with 64 columns has two. Stages of shared memory are filled in the background (cp.async), so that all but one are
// under way while that is multiplied; operands stay as they are stored, and ldmatrix transposes what has to be. Tiles of
// 128×128 have three stages and two blocks a multiprocessor; larger ones have a multiprocessor to themselves, and four.
// 64×64 have three, too, with three blocks: where products are small a block may be alone, and has two stages on their way,
// 512 cycles of the matrix unit.
//
// Needs of each operand an address, leading dimension and batch stride in multiples of 16 bytes, or, where the launch
// says so (PAIRS), of 4: copies are of two elements then, four times as many. Sizes are any. Lanes
// that are not there are copies of one that is: their sums are nobody's. Only where a chunk is there in part, at the
// end of k or of rows stored [k][lane], a copy says how many of its bytes are there, and fills up with zeros: nothing
// outside the operands is read, and tails of k add 0·0.
#pragma once
#include "gemm/operand.h"
#include "mma.h"

namespace hs {

constexpr uint32_t LEAST_ALIGNED = 64;  // rows and columns of the smallest tile that there is a loop for
constexpr bool ROTATES = false;         // an A100's addresses are spread over the channels by a hash

HS_DEVICE void copy16(uint32_t to, uint64_t from, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
}
HS_DEVICE void copy16(uint32_t to, uint64_t from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(to), "l"(from) : "memory");
}
HS_DEVICE void copy4(uint32_t to, uint64_t from, uint32_t bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
}
HS_DEVICE void copies_end() { asm volatile("cp.async.commit_group;" : : : "memory"); }
// All but the last `N` groups have arrived.
template <int N>
HS_DEVICE void copies_arrived() {
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED, uint32_t TM, uint32_t TN>
struct AlignedLoop {
  using Sums = MatrixSums<TYPE, TM, TN>;
  static constexpr uint32_t STEPS = TN == 64 ? 2 : 1;  // of 32, in a stage
  static constexpr uint32_t OPERAND_A = TM * 64, STEP = (TM + TN) * 64, STAGE = STEPS * STEP;
  static constexpr uint32_t BYTES = ASKED<TM, TN> > 0 ? ASKED<TM, TN> : 48 * 1024;  // all there is without asking
  static constexpr uint32_t STAGES = BYTES / STAGE;
  static_assert(BYTES % STAGE == 0 && STAGES >= 3, "stages fill the memory");

  // One operand of this thread: `COUNT` chunks of 16 bytes a step.
  template <bool TOGETHER, uint32_t LANES>
  struct Source {
    static constexpr uint32_t COUNT = LANES * 4 / Sums::THREADS;
    static constexpr uint32_t OPERAND = LANES * 64;
    static constexpr uint32_t APART = TOGETHER ? Sums::THREADS / 4 : 32 / COUNT;  // lanes, or steps of k, between two

    uint64_t from[TOGETHER ? COUNT : 1];  // of each chunk of step 0; stored [k][lane], of the last that was copied
    uint64_t apart;                       // stored [k][lane]: bytes to the next chunk, of this step or the next
    uint32_t to;                          // of the first chunk, in the stage
    uint32_t k;                           // the first chunk's first step of k
    uint32_t lanes;                       // stored [k][lane]: how many of each chunk are there, if not all

    // `lane(i)`: where lane i of the tile is, and whether it is there; `all` are the operand's.
    template <class Lane>
    HS_DEVICE void start(uint64_t base, uint64_t ld, uint64_t all, Lane lane) {
      const uint32_t i = thread_index();
      bool there;
      lanes = 8;
      if (TOGETHER) {  // [lane][k]: four chunks a lane
        k = i % 4 * 8;
#pragma unroll
        for (uint32_t c = 0; c < COUNT; c++) {
          uint64_t at = lane(i / 4 + APART * c, there);
          if (!there) at = lane(0, there);
          from[c] = base + (at * ld + k) * 2;
        }
        to = offset_together(i / 4, i % 4);
      } else {  // [k][lane]: an eighth as many chunks a step of k
        constexpr uint32_t CHUNKS = LANES / 8;
        k = i / CHUNKS;
        uint64_t at = lane(i % CHUNKS * 8, there);
        if (!there) at = lane(0, there);
        // (The gate's and up's columns end together.)
        const uint64_t end = at < all ? all : 2 * all;
        if (end - at < 8) lanes = static_cast<uint32_t>(end - at);
        apart = APART * ld * 2;
        from[0] = base + (k * ld + at) * 2 - apart;
        to = offset_across<LANES>(k, i % CHUNKS);
      }
    }
    // Where chunk `c` of step `s` is; asked once for each, in order. Stored [lane][k], a multiply-add from the number of
    // the step, which the loop counts anyway. Stored [k][lane], an addition to the address of the chunk before, the only
    // one in registers: the compiler would keep multiples of `apart` instead, and add those.
    HS_DEVICE uint64_t chunk(uint32_t c, uint32_t s) {
      if (TOGETHER) return from[c] + static_cast<uint64_t>(s) * 64;
      return from[0] = again(from[0] + apart);
    }
    // Step `s`, the next, into a stage. APART lanes or steps are a multiple of what chunks are exchanged by.
    HS_DEVICE void copy(uint32_t stage, uint32_t s) {
#pragma unroll
      for (uint32_t c = 0; c < COUNT; c++) copy16(stage + to + c * (OPERAND / COUNT), chunk(c, s));
    }
    // The same where chunks may be there in part: `left` steps of k are. By two elements at a time if `pairs`. An address
    // is formed for what is not there too, but nothing is read from it.
    HS_DEVICE void copy_part(uint32_t stage, uint32_t s, uint32_t left, bool pairs) {
#pragma unroll
      for (uint32_t c = 0; c < COUNT; c++) {
        const uint64_t address = chunk(c, s);
        const uint32_t first = TOGETHER ? k : k + APART * c;
        const uint32_t steps = first < left ? left - first : 0;
        const uint32_t elements = TOGETHER ? steps : steps > 0 ? lanes : 0;
        const uint32_t bytes = elements < 8 ? 2 * elements : 16, place = stage + to + c * (OPERAND / COUNT);
        if (pairs) {
          // Each eight threads, which write a line of 128 bytes, begin with another word: all 32 banks are written.
          const uint32_t turn = thread_index() / 8;
#pragma unroll
          for (uint32_t w = 0; w < 4; w++) {
            const uint32_t at = (w + turn) % 4 * 4, rest = bytes > at ? bytes - at : 0;
            copy4(place + at, address + at, rest < 4 ? rest : 4);
          }
        } else {
          copy16(place, address, bytes);
        }
      }
    }
  };

  HS_DEVICE static void run(const Product& p, const Tile& t, Sums& sums, char* shared) {
    const uint32_t stages = shared_address(shared);
    Source<!A_TRANSPOSED, TM> a;
    Source<B_TRANSPOSED, TN> b;
    a.start(like_a(p, t, p.a, p.lda, p.stride_a), p.lda, t.m, [&](uint32_t i, bool& there) {
      there = t.row + i < t.m;
      return t.row + i;
    });
    b.start(start_of_b(p, t), p.ldb, p.n,
            [&](uint32_t i, bool& there) { return column_of_b<TN>(p, t, i, there); });
    Fragments<true, !A_TRANSPOSED, TM, Sums::OWN_ROWS> of_a;
    Fragments<false, B_TRANSPOSED, TN, Sums::OWN_COLUMNS> of_b;
    of_a.start(Sums::first_row());
    of_b.start(Sums::first_column());

    const uint32_t all = tiles_of(t.k, 32 * STEPS);  // stages to fill
    const bool pairs = (p.flags & PAIRS) != 0;
    auto copy_part = [&](uint32_t s, uint32_t stage) {
      if (s < all) {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) {
          const uint64_t first = (static_cast<uint64_t>(s) * STEPS + i) * 32;
          const uint64_t left = first < t.k ? t.k - first : 0;
          const uint32_t count = left < 32 ? static_cast<uint32_t>(left) : 32u;
          a.copy_part(stage + i * STEP, s * STEPS + i, count, pairs);
          b.copy_part(stage + i * STEP + OPERAND_A, s * STEPS + i, count, pairs);
        }
      }
      copies_end();
    };
    uint32_t now = stages, next = stages + (STAGES - 1) * STAGE;
    auto step = [&](auto copy) {
      copies_arrived<STAGES - 2>();
      barrier();  // everybody's part has arrived, and the stage before has been read
      copy();
#pragma unroll
      for (uint32_t i = 0; i < STEPS; i++) {
        sums.multiply_at(of_a, of_b, now + i * STEP, now + i * STEP + OPERAND_A);
      }
      next = now;
      now = now == stages + (STAGES - 1) * STAGE ? stages : now + STAGE;
    };
#pragma unroll
    for (uint32_t i = 0; i < STAGES - 1; i++) copy_part(i, stages + i * STAGE);
    // Stages that are copied whole: all but the last, unless the tile has chunks that are not.
    const bool ragged = (A_TRANSPOSED && t.m % 8 != 0 && t.m - t.row < TM) || (!B_TRANSPOSED && p.n % 8 != 0);
    const uint32_t whole = ragged || pairs ? 0 : static_cast<uint32_t>(t.k / (32 * STEPS));
    uint32_t s = STAGES - 1;
#pragma unroll 1
    for (; s < whole; s++) {
      step([&] {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) {
          const uint32_t number = again(s * STEPS + i);  // addresses are computed from it, not kept beside it
          a.copy(next + i * STEP, number);
          b.copy(next + i * STEP + OPERAND_A, number);
        }
        copies_end();
      });
    }
    // (Behind the last stage, copies of nothing: no data is on its way at the end.)
#pragma unroll 1
    for (; s < all + STAGES - 1; s++) step([&] { copy_part(s, next); });
  }
};

}  // namespace hs
