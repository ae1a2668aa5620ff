// D = epilogue(A·B) by the path that takes every product: see result.h for the formula.
//
// `=`, or in place where the epilogue says so. Deterministic: each element is one sum over k in
// ascending order, or where rotated from its column's first step on and around (f32, which is not: one chain of fmaf,
// the reference's bits; 16-bit types: one chain of the matrix unit's steps), whatever the number of blocks and
// whichever the loop. 64×64 tiles, k in steps of 32; of 64 where operands are copied.
//
// Operands that are not aligned, or change on their way, go through registers. Aligned ones are copied in the
// background instead where the target has such a loop for the tile: see gemm.h of the target.
//
// Limiter: 16-bit types, shared memory. An A100's matrix unit takes 2·64·64·32 operations in 128 cycles of
// a multiprocessor, the tile's 4 waves read 4·(2 + 2)·2 matrices of 512 bytes in 128, and write 8 KB in 64: two
// thirds of 312 TFLOP/s at the best. f32: an A100's vector unit, 19.5 TFLOP/s; an MI250X GCD's matrix unit, 256
// operations a cycle of a compute unit, 47.9 TFLOP/s, for which a tile reads 16 bytes of A and B a cycle.
#pragma once
#include "f32.h"
#include "gemm.h"
#include "gemm/column_sums.h"
#include "gemm/epilogue.h"
#include "gemm/operand.h"
#include "gemm/statistics.h"
#include "mma.h"

namespace hs {

constexpr uint32_t SMALL = 64;  // rows and columns of a tile
constexpr uint32_t STEP = 32;   // of k

template <uint32_t TYPE>
struct Choice {
  using Sums = MatrixSums<TYPE, SMALL, SMALL>;
};
template <>
struct Choice<F32> {
  using Sums = F32Sums;
};

// Two buffers in shared memory: step s + 1 is on its way through registers while step s is multiplied.
template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED>
struct RegisterLoop {
  using Sums = typename Choice<TYPE>::Sums;
  static constexpr uint32_t OPERAND = Sums::OPERAND_BYTES;  // of a step
  static constexpr uint32_t BYTES = 4 * OPERAND;
  // Which chunks of each operand are this thread's: neighbours take what is side by side in memory.
  static constexpr uint32_t CHUNKS = 4 * SMALL / Sums::THREADS;
  HS_DEVICE static uint32_t lane(bool together, uint32_t c) {
    const uint32_t i = c * Sums::THREADS + thread_index();
    return together ? i / 4 : i % SMALL;
  }
  HS_DEVICE static uint32_t chunk(bool together, uint32_t c) {
    const uint32_t i = c * Sums::THREADS + thread_index();
    return together ? i % 4 : i / SMALL;
  }

  HS_DEVICE static void run(const Product& p, const Tile& t, Sums& sums, char* shared) {
    Chunk8<TYPE> a[CHUNKS], b[CHUNKS];
    auto load = [&](uint64_t k) {
      auto count = [&](uint64_t first) {
        return first >= t.k ? 0u : t.k - first < 8 ? static_cast<uint32_t>(t.k - first) : 8u;
      };
#pragma unroll
      for (uint32_t c = 0; c < CHUNKS; c++) {
        const uint64_t row = t.row + lane(!A_TRANSPOSED, c), ka = k + 8 * chunk(!A_TRANSPOSED, c);
        load_a<TYPE, !A_TRANSPOSED>(a[c], p, t, row, ka, row < t.m ? count(ka) : 0);
        bool there;
        const uint64_t column = column_of_b<SMALL>(p, t, lane(B_TRANSPOSED, c), there);
        const uint64_t kb = k + 8 * chunk(B_TRANSPOSED, c);
        load_b<TYPE, B_TRANSPOSED>(b[c], p, t, column, kb, there ? count(kb) : 0);
      }
    };
    // Here and not where it is loaded: by now it has arrived.
    auto store = [&](char* to) {
      const bool through = TYPE == BF16 && (reload(p).flags & THROUGH_BF16) != 0;
#pragma unroll
      for (uint32_t c = 0; c < CHUNKS; c++) {
        if (through) through_bf16<TYPE>(a[c]), through_bf16<TYPE>(b[c]);
        Sums::store(to, chunk(!A_TRANSPOSED, c), lane(!A_TRANSPOSED, c), a[c].x);
        Sums::store(to + OPERAND, chunk(B_TRANSPOSED, c), lane(B_TRANSPOSED, c), b[c].x);
      }
    };
    // Computed where it is asked for: what a step needs of the parameters fills the scalar registers.
    constexpr bool ROUND = ROTATES && TURNS<A_TRANSPOSED, B_TRANSPOSED>;
    auto first = [&] { return ROUND ? static_cast<uint64_t>(first_step(reload(p), t)) * STEP : 0; };
    uint64_t k = first();
    load(k);
    store(shared);
    barrier();
    uint32_t now = 0;
#pragma unroll 1
    for (;; now = 2 * OPERAND - now) {
      k += STEP;
      bool more = k < t.k;
      if (ROUND) {
        k = more ? k : 0;
        more = k != first();
      }
      if (more) load(k);
      sums.multiply(shared + now, shared + now + OPERAND);
      if (!more) break;
      store(shared + (2 * OPERAND - now));
      barrier();
    }
  }
};

// The loop of aligned operands, where there is one for the tile; else one that no block runs.
template <bool THERE, uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED>
struct Copies {
  using Loop = AlignedLoop<TYPE, A_TRANSPOSED, B_TRANSPOSED, SMALL, SMALL>;
};
template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED>
struct Copies<false, TYPE, A_TRANSPOSED, B_TRANSPOSED> {
  using Loop = RegisterLoop<TYPE, A_TRANSPOSED, B_TRANSPOSED>;
};

template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED>
HS_DEVICE void product(const Product& block) {
  using Any = RegisterLoop<TYPE, A_TRANSPOSED, B_TRANSPOSED>;
  constexpr bool COPIES = TYPE != F32 && LEAST_ALIGNED <= SMALL;
  using Copied = typename Copies<COPIES, TYPE, A_TRANSPOSED, B_TRANSPOSED>::Loop;
  using Sums = typename Any::Sums;
  constexpr uint32_t SLAB = Slab<SMALL, Sums::BANDS>::BYTES;
  constexpr uint32_t LOOP = Any::BYTES > Copied::BYTES ? Any::BYTES : Copied::BYTES;
  HS_SHARED __attribute__((aligned(128))) char shared[LOOP > SLAB ? LOOP : SLAB];
  static_assert(sizeof(StatisticsMemory) <= sizeof(shared), "they have the tile's memory");

  uint32_t index = block_index();
  if constexpr (A_TRANSPOSED) index = sums_beside<TYPE, Sums::THREADS>(block, shared);
  Tile t;
#pragma unroll 1
  for (; locate(reload(block), index, SMALL, (block.flags & GATED) != 0 ? SMALL / 2 : SMALL, t);
       index += block_count()) {
    const Product& p = reload(block);
    Sums sums;
    sums.clear();
    if (t.k > 0) {
      if (COPIES && (p.flags & ALIGNED) != 0) Copied::run(p, t, sums, shared);
      else Any::run(p, t, sums, shared);
    }
    epilogue<SMALL, SMALL>(p, t, sums, reinterpret_cast<float*>(shared));
    if constexpr (A_TRANSPOSED) tile_stored<SMALL, SMALL, Sums::THREADS>(reload(block), t, shared);
    barrier();  // the slab has been read
  }
}

}  // namespace hs
