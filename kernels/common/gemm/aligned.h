// D = epilogue(A·B) for aligned 16-bit operands and large sizes: see result.h for the formula and gemm.h of
// the target for the loop.
//
// `=`, or in place where the epilogue says so. Deterministic: each element is one chain of the matrix
// unit's steps over k in ascending order, or where rotated from its column's first step on and around, whatever the tile
// and the number of blocks.
//
// Limiter: the matrix unit, closely followed by shared memory. A step takes an A100's multiprocessor 512 cycles of
// 1,024 multiply-adds, and 4 waves read 2·(4 + 4)·512 bytes of fragments in 256 of them, 128 bytes each. 4,096³ are
// 0.44 ms at 312 TFLOP/s; an MI250X GCD's 191.5 make 0.72 ms.
#pragma once
#include "gemm.h"
#include "gemm/column_sums.h"
#include "gemm/statistics.h"

namespace hs {

template <uint32_t TYPE, bool A_TRANSPOSED, bool B_TRANSPOSED, uint32_t TM, uint32_t TN>
HS_DEVICE void aligned(const Product& p) {
  using Loop = AlignedLoop<TYPE, A_TRANSPOSED, B_TRANSPOSED, TM, TN>;
  static_assert(Slab<TN, Loop::Sums::BANDS>::BYTES <= Loop::BYTES && sizeof(StatisticsMemory) <= Loop::BYTES,
                "what follows the loop has its memory");
  HS_SHARED_OF_TILE(shared, Loop::BYTES, (ASKED<TM, TN> > 0));
  uint32_t index = block_index();
  if constexpr (A_TRANSPOSED) index = sums_beside<TYPE, Loop::Sums::THREADS>(p, shared);
  Tile t;
#pragma unroll 1
  for (; locate(reload(p), index, TM, (reload(p).flags & GATED) != 0 ? TN / 2 : TN, t);
       index += block_count()) {
    typename Loop::Sums sums;
    sums.clear();
    Loop::run(reload(p), t, sums, shared);
    epilogue<TM, TN>(reload(p), t, sums, reinterpret_cast<float*>(shared));
    if constexpr (A_TRANSPOSED) tile_stored<TM, TN, Loop::Sums::THREADS>(reload(p), t, shared);
    barrier();  // the slab has been read
  }
}

}  // namespace hs
