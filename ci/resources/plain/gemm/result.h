// result.h, with all of a product's options compiled out: D = α·t. See tile.h beside it.
#pragma once
#include "gemm/tile.h"
#include "walk.h"

namespace hs {

template <class Up>
HS_DEVICE void result8(const Product& p, const Tile& t, float (&v)[8], Up, uint64_t i, uint64_t j, uint32_t count) {
#pragma unroll
  for (int e = 0; e < 8; e++) v[e] *= p.alpha;
  store8(v, like_d(p, t, p.d, p.ldd, p.stride_d, p.output), i * p.ldd + j, count, p.output);
}

HS_DEVICE void result8_transposed(const Product&, const Tile&, float (&)[8], uint64_t, uint64_t, uint32_t) {}

}  // namespace hs
