// The main loop for aligned 16-bit operands, for gfx90a: k in steps of 32, four waves with a quarter of the tile each,
// two buffers in LDS. Step s is multiplied while step s + 1 goes from registers to LDS and step s + 2 from memory to
// the same registers; fragments are read one group of 16 steps ahead. One memory instruction stands behind each
// MFMA, and sched_barrier keeps it there, for clang 15 and newer alike: so a write to LDS waits for its own load,
// which is a whole step old, and never for all of them.
//
// Operands need an address, leading dimension and batch stride in multiples of 4 bytes. Stored [lane][k]: 16-byte loads,
// k in multiples of 8 (of the address of a load of dwords AMD's devices ignore two bits, not four: "Alignment" in their
// manuals of the instruction set). Stored [k][lane]: 4-byte loads of two lanes for eight steps, transposed by v_perm;
// lanes in multiples of 2.
// Loads are bounded by the buffer descriptor: what is not there reads as 0 without a branch. Offsets in it have 32
// bits, so what a tile reads of an operand has to lie within 2 GiB.
#pragma once
#include "gemm/operand.h"
#include "mma.h"

namespace hs {

constexpr uint32_t LEAST_ALIGNED = 128;  // rows and columns of the smallest tile that there is a loop for
constexpr bool ROTATES = true;           // tiles may start k at steps of their own: first_step

// The builtins of these are newer than clang 15; the names are not.
extern "C" __device__ int4_t hs_buffer_load16(int4_t, int, int, int) __asm("llvm.amdgcn.raw.buffer.load.v4i32");
extern "C" __device__ int hs_buffer_load4(int4_t, int, int, int) __asm("llvm.amdgcn.raw.buffer.load.i32");

// A buffer of `bytes` at `base`: uniform over the wave.
HS_DEVICE int4_t descriptor(uint64_t base, uint32_t bytes) {
  int4_t d;
  d[0] = __builtin_amdgcn_readfirstlane(static_cast<int>(base));
  d[1] = __builtin_amdgcn_readfirstlane(static_cast<int>(base >> 32) & 0xffff);
  d[2] = __builtin_amdgcn_readfirstlane(static_cast<int>(bytes));
  d[3] = 0x00020000;
  return d;
}

// Every wave has come, and its reads and writes of LDS are done. Loads from memory stay under way, for which
// __syncthreads of clang 15 would wait.
HS_DEVICE void barrier_of_lds() { asm volatile("s_waitcnt lgkmcnt(0)\n\ts_barrier" : : : "memory"); }

template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED, uint32_t TM, uint32_t TN>
struct AlignedLoop {
  using Sums = MatrixSums<TYPE, TM, TN>;
  static constexpr uint32_t OPERAND_A = TM * 64, STAGE = (TM + TN) * 64;
  static constexpr uint32_t BYTES = 2 * STAGE;
  static constexpr uint32_t NOWHERE = 0x80000000u;  // an offset behind every buffer

  // One operand of this thread: two or four chunks a step. Stored [k][lane], two chunks are of a pair of lanes.
  template <bool TOGETHER, uint32_t LANES>
  struct Source {
    static constexpr uint32_t COUNT = LANES / 64;
    static constexpr uint32_t PLACES = TOGETHER ? COUNT : COUNT / 2;
    int4_t buffer;
    uint32_t at[PLACES];  // of each chunk or pair, in bytes; NOWHERE for lanes that are not there
    uint32_t row;    // [k][lane]: bytes from one step of k to the next
    uint32_t to;     // of the first chunk, in the stage
    uint32_t left;   // steps of k from the chunk's first on; wraps below 0 as a signed number
    int4_t word[COUNT];  // the chunks, or of each pair of lanes eight words

    // `lane(i)`: where lane i of the tile is, and whether it is there. `lanes`, `steps`: of the operand.
    // From step `begin` of 32 on.
    template <class Lane>
    HS_DEVICE void start(uint64_t base, uint64_t ld, uint64_t first, uint64_t lanes, uint64_t steps, uint32_t begin,
                         Lane lane) {
      const uint32_t i = again(thread_index()), l32 = static_cast<uint32_t>(ld);
      bool there;
      if (TOGETHER) {
        const uint32_t chunk = i % 4;
        const uint64_t bytes = ((lanes - first - 1) * ld + steps) * 2;
        buffer = descriptor(base + first * ld * 2, bytes < NOWHERE ? static_cast<uint32_t>(bytes) : NOWHERE);
#pragma unroll
        for (uint32_t c = 0; c < COUNT; c++) {
          const uint32_t far = static_cast<uint32_t>(lane(i / 4 + 64 * c, there) - first);
          at[c] = there ? (far * l32 + 8 * chunk) * 2 : NOWHERE;
        }
        to = chunk_offset<LANES>(chunk, i / 4);
        left = static_cast<uint32_t>(steps) - 8 * chunk;
      } else {
        const uint32_t chunk = wave(), pair = i % 64 * 2;
        const uint64_t bytes = steps > 0 ? ((steps - 1) * ld + lanes - first) * 2 : 0;
        buffer = descriptor(base + first * 2, static_cast<uint32_t>(bytes));
#pragma unroll
        for (uint32_t c = 0; c < PLACES; c++) {
          const uint32_t far = static_cast<uint32_t>(lane(pair + 128 * c, there) - first);
          at[c] = there ? (8 * chunk * l32 + far) * 2 : NOWHERE;
        }
        row = l32 * 2;
        left = static_cast<uint32_t>(steps) - 8 * chunk;
        to = chunk_offset<LANES>(chunk, pair);
      }
      move(begin * step());
      left -= 32 * begin;
    }
    HS_DEVICE uint32_t step() const { return TOGETHER ? 64 : 32 * row; }  // bytes to the next 32 steps
    HS_DEVICE void move(uint32_t bytes) {
#pragma unroll
      for (uint32_t c = 0; c < PLACES; c++) at[c] += at[c] != NOWHERE ? bytes : 0;
    }
    HS_DEVICE static uint32_t wave() { return __builtin_amdgcn_readfirstlane(thread_index() / 64); }

    // Loads into the registers of chunk `c`; the second of a pair loads both.
    HS_DEVICE void load(uint32_t c) {
      const int steps = static_cast<int>(left);
      if (TOGETHER) {
        word[c] = hs_buffer_load16(buffer, steps > 0 ? at[c] : NOWHERE, 0, 0);
      } else if (c % 2 == 1) {
        const uint32_t place = at[c / 2];
#pragma unroll
        for (int e = 0; e < 8; e++) {
          const bool there = e < steps && place != NOWHERE;
          word[c - 1 + e / 4][e % 4] = hs_buffer_load4(buffer, there ? place + e * row : NOWHERE, 0, 0);
        }
      }
    }
    HS_DEVICE void advance() {
      left -= 32;
      move(step());
    }
    // Before the step behind the last of `steps`: back to the one before the first, to read up to step `end`.
    HS_DEVICE void wrap(uint32_t steps, uint32_t end) {
      left = 32 * (end + 1) - 8 * (TOGETHER ? again(thread_index()) % 4 : wave());
      move(0u - steps * step());
    }
    HS_DEVICE void store(char* stage, uint32_t c) const {
      int4_t chunk = word[c];
      if (!TOGETHER) {
        const uint32_t pair = c / 2 * 2, halves = c % 2 == 0 ? 0x05040100u : 0x07060302u;
#pragma unroll
        for (int w = 0; w < 4; w++) {
          chunk[w] = __builtin_amdgcn_perm(word[pair + w / 2][w % 2 * 2 + 1], word[pair + w / 2][w % 2 * 2], halves);
        }
      }
      // 64 lanes further, or one lane, or 128: exchanging is of eight lanes at most.
      const uint32_t place = TOGETHER ? to + 1024 * c : (to ^ 16 * (c % 2)) + 2048 * (c / 2);
      *reinterpret_cast<int4_t*>(stage + place) = chunk;
    }
  };

  HS_DEVICE static void run(const Product& p, const Tile& t, Sums& sums, char* shared) {
    const uint32_t steps = tiles_of(t.k, 32);
    const uint32_t begin = TURNS<A_TRANSPOSED, B_TRANSPOSED> ? first_step(p, t) : 0;
    Source<!A_TRANSPOSED, TM> a;
    Source<B_TRANSPOSED, TN> b;
    a.start(like_a(p, t, p.a, p.lda, p.stride_a), p.lda, t.row, t.m, t.k, begin, [&](uint32_t i, bool& there) {
      there = t.row + i < t.m;
      return t.row + i;
    });
    b.start(start_of_b(p, t), p.ldb, t.column, (p.flags & GATED) != 0 ? 2 * p.n : p.n, t.k, begin,
            [&](uint32_t i, bool& there) { return column_of_b<TN>(p, t, i, there); });

    const uint32_t l = again(thread_index()) % 64, lane = l % 32, half = l / 32;
    uint32_t from_a[2], from_b[2];  // fragments of each group of 16 steps
#pragma unroll
    for (uint32_t g = 0; g < 2; g++) {
      from_a[g] = chunk_offset<TM>(2 * g + half, Sums::first_row() + lane);
      from_b[g] = OPERAND_A + chunk_offset<TN>(2 * g + half, Sums::first_column() + lane);
    }
    constexpr uint32_t DOWN = Sums::DOWN, ACROSS = Sums::ACROSS;
    constexpr uint32_t READS = DOWN + ACROSS, OF_A = a.COUNT, CHUNKS = a.COUNT + b.COUNT;
    int4_t fa[2][DOWN], fb[2][ACROSS];  // [group][32 rows or columns]
    auto read = [&](const char* stage, uint32_t g, uint32_t i) {
      if (i < DOWN) fa[g][i] = *reinterpret_cast<const int4_t*>(stage + from_a[g] + 512 * i);
      else fb[g][i - DOWN] = *reinterpret_cast<const int4_t*>(stage + from_b[g] + 512 * (i - DOWN));
    };
    auto store = [&](char* stage, uint32_t i) {
      if (i < OF_A) a.store(stage, i);
      else b.store(stage + OPERAND_A, i - OF_A);
    };
    auto load = [&](uint32_t i) {
      if (i < OF_A) a.load(i);
      else b.load(i - OF_A);
    };

#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) load(i);
    a.advance(), b.advance();
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) store(shared, i);
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) load(i);
    barrier_of_lds();
#pragma unroll
    for (uint32_t i = 0; i < READS; i++) read(shared, 0, i);
    uint32_t now = 0, s = 0;
    // Loads are two steps ahead; the first step is four before the last at least.
    uint32_t end = begin > 0 ? steps - begin - 2 : steps;
#pragma unroll 1
    for (;;) {
#pragma unroll 1
      for (; s < end; s++) {
        const char* stage = shared + now;
        char* next = shared + (STAGE - now);
        now = STAGE - now;
        a.advance(), b.advance();
#pragma unroll
        for (uint32_t g = 0; g < 2; g++) {
          if (g == 1) {  // the next step is in LDS, and nobody reads the one before any more
            barrier_of_lds();
            __builtin_amdgcn_sched_barrier(0);
          }
#pragma unroll
          for (uint32_t slot = 0; slot < 2 * DOWN * ACROSS; slot++) {
            const uint32_t k = slot / (DOWN * ACROSS), i = slot / ACROSS % DOWN, j = slot % ACROSS;
            sums.sum[i][j] = mma<TYPE>(int2_t{fa[g][i][2 * k], fa[g][i][2 * k + 1]},
                                       int2_t{fb[g][j][2 * k], fb[g][j][2 * k + 1]}, sums.sum[i][j]);
            if (slot < READS) {
              read(g == 0 ? stage : next, 1 - g, slot);
            } else if (g == 0 && slot - READS < CHUNKS) {
              store(next, slot - READS);
              load(slot - READS);
            }
            __builtin_amdgcn_sched_barrier(0);
          }
        }
      }
      if (end == steps) break;
      a.wrap(steps, begin), b.wrap(steps, begin);
      end = steps;
    }
    // Told at the loop's end too, unless it is entered twice: so clang 15 and 19 both move nothing in between.
    if (!TURNS<A_TRANSPOSED, B_TRANSPOSED>) sums.stay();
  }
};

}  // namespace hs
