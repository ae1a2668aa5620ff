// D = epilogue(A·B) by the path that takes every product: see epilogue.h for the formula.
//
// `=`, or in place where the epilogue says so. Deterministic: each element is one sum over k in
// ascending order (f32: one chain of fmaf, the reference's bits; 16-bit types: one chain of the matrix
// unit's steps), whatever the number of blocks. 64×64 tiles, k in steps of 32, two buffers in shared
// memory: step s + 1 is on its way through registers while step s is multiplied.
//
// Limiter: 16-bit types, shared memory. An A100's matrix unit takes 2·64·64·32 operations in 128 cycles of
// a multiprocessor, the tile's 4 waves read 4·(2 + 2)·2 matrices of 512 bytes in 128, and write 8 KB in 64: two
// thirds of 312 TFLOP/s at the best. f32: the vector unit, 19.5 TFLOP/s of an A100, 23.9 of an MI250X GCD.
#pragma once
#include "gemm/epilogue.h"
#include "gemm/operand.h"
#include "mma.h"
#include "gemm/vector.h"

namespace hs {

constexpr uint32_t SMALL = 64;  // rows and columns of a tile
constexpr uint32_t STEP = 32;   // of k

template <uint32_t TYPE>
struct Choice {
  using Sums = MatrixSums<TYPE, SMALL, SMALL>;
};
template <>
struct Choice<F32> {
  using Sums = VectorSums;
};

template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED>
HS_DEVICE void product(const Product& block) {
  using Sums = typename Choice<TYPE>::Sums;
  constexpr uint32_t OPERAND = Sums::OPERAND_BYTES;  // of a step
  constexpr uint32_t SLAB = Slab<SMALL, Sums::BANDS>::BYTES;
  constexpr uint32_t BYTES = 4 * OPERAND > SLAB ? 4 * OPERAND : SLAB;
  HS_SHARED __attribute__((aligned(128))) char shared[BYTES];
  // Which chunks of each operand are this thread's: neighbours take what is side by side in memory.
  constexpr uint32_t CHUNKS = 4 * SMALL / Sums::THREADS;
  auto lane = [](bool together, uint32_t c) {
    const uint32_t i = c * Sums::THREADS + thread_index();
    return together ? i / 4 : i % SMALL;
  };
  auto chunk = [](bool together, uint32_t c) {
    const uint32_t i = c * Sums::THREADS + thread_index();
    return together ? i % 4 : i / SMALL;
  };

  Tile t;
#pragma unroll 1
  for (uint32_t index = block_index(); locate(reload(block), index, SMALL, (block.flags & GATED) != 0 ? SMALL / 2 : SMALL, t);
       index += block_count()) {
    const Product& p = reload(block);
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
    auto store = [&](char* to) {
#pragma unroll
      for (uint32_t c = 0; c < CHUNKS; c++) {
        Sums::store(to, chunk(!A_TRANSPOSED, c), lane(!A_TRANSPOSED, c), a[c].x);
        Sums::store(to + OPERAND, chunk(B_TRANSPOSED, c), lane(B_TRANSPOSED, c), b[c].x);
      }
    };
    Sums sums;
    sums.clear();
    if (t.k > 0) {
      load(0);
      store(shared);
      barrier();
      uint32_t now = 0;
#pragma unroll 1
      for (uint64_t k = 0;; k += STEP, now = 2 * OPERAND - now) {
        const bool more = k + STEP < t.k;
        if (more) load(k + STEP);
        sums.multiply(shared + now, shared + now + OPERAND);
        if (!more) break;
        store(shared + (2 * OPERAND - now));
        barrier();
      }
    }
    epilogue<SMALL, SMALL>(p, t, sums, reinterpret_cast<float*>(shared));
    barrier();  // the slab has been read
  }
}

}  // namespace hs
