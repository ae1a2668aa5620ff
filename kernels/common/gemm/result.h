// What becomes of eight sums t: p = α·t + β·C + bias, then by role D = act(p) + residual,
// D = p·act'(z) + residual, or D = p + residual; D = act(p)∘p_up + residual where gated; and a copy of a dense f32 D,
// rounded to 16 bits. The order of src/gemm/reference.rs, in f32, each stored value rounded once.
//
// `=`; in place where C or the residual is D: each element is read and written by one thread.
// Every option is a branch that all threads of a launch take alike. Columns and rows behind the product's
// are neither read nor written.
#pragma once
#include "gemm/tile.h"
#include "walk.h"

namespace hs {

// α·t + β·C + bias for eight columns from `j` on; `c` is 0 where there is none.
HS_DEVICE void before8(float (&v)[8], const Product& p, uint64_t c, uint64_t ci, uint64_t bias, uint64_t j,
                       uint32_t count) {
#pragma unroll
  for (int e = 0; e < 8; e++) v[e] *= p.alpha;
  float other[8];
  if (c != 0) {
    load8(other, c, ci, count, p.output);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = fmaf(p.beta, other[e], v[e]);
  }
  if (bias != 0) {
    load8(other, bias, j, count, p.input);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] += other[e];
  }
}

// Eight elements of the finished D, and of its copy, which is laid out alike.
HS_DEVICE void store_d(const Product& p, const Tile& t, float (&v)[8], uint64_t at, uint32_t count) {
  store8_result(v, like_d(p, t, p.d, p.ldd, p.stride_d, p.output), at, count, p.output, (p.flags & FLUSH) != 0);
  if (p.copy != 0) store8(v, like_d(p, t, p.copy, p.ldd, p.stride_d, p.copy_type), at, count, p.copy_type);
}

// Eight elements of D stored [m,n], from their sums `v` and, where gated, what `read_up` gives: read no earlier than
// they are needed, since the tile's other sums leave few registers.
template <class Up>
HS_DEVICE void result8(const Product& p, const Tile& t, float (&v)[8], Up read_up, uint64_t i, uint64_t j,
                       uint32_t count) {
  const bool gated = (p.flags & GATED) != 0, flush = (p.flags & FLUSH) != 0;
  const uint64_t c = p.c == 0 ? 0 : like_d(p, t, p.c, p.ldc, p.stride_c, p.output);
  const uint64_t bias = p.bias == 0 ? 0 : p.bias + t.member * p.stride_bias * element_bytes(p.input);
  auto store_preactivation = [&](float (&x)[8], uint64_t column) {
    const uint64_t to = like_d(p, t, p.preactivation, p.ldp, p.stride_preactivation, p.input);
    store8_result(x, to, i * p.ldp + column, count, p.input, flush);
  };
  float other[8];
  before8(v, p, c, i * p.ldc + j, bias, j, count);
  if (p.preactivation != 0) {
#pragma unroll
    for (int e = 0; e < 8; e++) other[e] = v[e];
    store_preactivation(other, j);
  }
  if (p.role == ROLE_FORWARD) {
    apply8(v, p.activation);
  } else if (p.role == ROLE_DERIVATIVE) {
    load8(other, like_d(p, t, p.z, p.ldz, p.stride_z, p.input), i * p.ldz + j, count, p.input);
    derive8(other, p.activation);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] *= other[e];
  }
  if (gated) {
    read_up(other);
    before8(other, p, 0, 0, bias, p.n + j, count);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] *= other[e];
    if (p.preactivation != 0) store_preactivation(other, p.n + j);
  }
  if (p.residual != 0) {
    const uint64_t residual = like_d(p, t, p.residual, p.ldr, p.stride_residual, p.output);
    load8(other, residual, i * p.ldr + j, count, p.output);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] += other[e];
  }
  store_d(p, t, v, i * p.ldd + j, count);
}

// Eight rows of one column of D stored [n,m]. Only the weight gradient asks for it, whose whole epilogue is β·C.
HS_DEVICE void result8_transposed(const Product& p, const Tile& t, float (&v)[8], uint64_t i, uint64_t j,
                                  uint32_t count) {
  const uint64_t c = p.c == 0 ? 0 : like_d(p, t, p.c, p.ldc, p.stride_c, p.output);
  before8(v, p, c, j * p.ldc + i, 0, 0, count);
  store_d(p, t, v, j * p.ldd + i, count);
}

}  // namespace hs
