// D = epilogue(A·B) by the path that takes every product: see epilogue.h for the formula.
//
// `=`, or in place where the epilogue says so. Deterministic: each element is one sum over k in
// ascending order (f32: one chain of fmaf, the reference's bits; 16-bit types: one chain of the matrix
// unit's steps), whatever the number of blocks. 64×64 tiles, k in steps of 32, two buffers in shared
// memory: step s + 1 is on its way through registers while step s is multiplied.
//
// Limiter: 16-bit types, shared memory. An A100's matrix unit takes 2·64·64·32 operations in 128 cycles of
// a multiprocessor, the tile's 8 waves read 8·(2 + 1)·2 matrices of 512 bytes in 192, and write 8 KB in 64: half of
// 312 TFLOP/s at the best. f32: the vector unit, 19.5 TFLOP/s of an A100, 23.9 of an MI250X GCD.
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
HS_DEVICE void product(const Product& p) {
  using Sums = typename Choice<TYPE>::Sums;
  constexpr uint32_t OPERAND = Sums::OPERAND_BYTES;  // of a step
  constexpr uint32_t BYTES = 4 * OPERAND > Slab<SMALL>::BYTES ? 4 * OPERAND : Slab<SMALL>::BYTES;
  HS_SHARED __attribute__((aligned(128))) char shared[BYTES];
  // Which chunk of each operand is this thread's: neighbours take what is side by side in memory.
  const uint32_t i = thread_index();
  const uint32_t lane_a = A_TRANSPOSED ? i % SMALL : i / 4, chunk_a = A_TRANSPOSED ? i / SMALL : i % 4;
  const uint32_t lane_b = B_TRANSPOSED ? i / 4 : i % SMALL, chunk_b = B_TRANSPOSED ? i % 4 : i / SMALL;

  Tile t;
#pragma unroll 1
  for (uint32_t index = block_index(); locate(p, index, SMALL, (p.flags & GATED) != 0 ? SMALL / 2 : SMALL, t);
       index += block_count()) {
    const bool has_a = t.row + lane_a < t.m;
    bool has_b;
    const uint64_t column = column_of_b<SMALL>(p, t, lane_b, has_b);
    Chunk8<TYPE> a, b;
    auto load = [&](uint64_t k) {
      auto count = [&](uint64_t first) {
        return first >= t.k ? 0u : t.k - first < 8 ? static_cast<uint32_t>(t.k - first) : 8u;
      };
      const uint64_t ka = k + 8 * chunk_a, kb = k + 8 * chunk_b;
      load_a<TYPE, !A_TRANSPOSED>(a, p, t, t.row + lane_a, ka, has_a ? count(ka) : 0);
      load_b<TYPE, B_TRANSPOSED>(b, p, t, column, kb, has_b ? count(kb) : 0);
    };
    auto store = [&](char* to) {
      Sums::store(to, chunk_a, lane_a, a.x);
      Sums::store(to + OPERAND, chunk_b, lane_b, b.x);
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
