// A tile's sums through shared memory, so that each thread has eight that are side by side, and from there into D,
// by way of result.h, or, of a part of k, into the workspace as they are.
#pragma once
#include "gemm/result.h"
#include "gemm/tile.h"
#include "walk.h"

namespace hs {

// Sums come through shared memory, 16 rows of each band of the tile at a time. A band is what the waves beside each
// other have, so every wave has some. Eight words of padding keep the lanes of a store on banks of their own.
template <uint32_t TN, uint32_t BANDS>
struct Slab {
  static constexpr uint32_t ROWS = 16 * BANDS;
  static constexpr uint32_t LD = TN + 8;
  static constexpr uint32_t BYTES = ROWS * LD * 4;
};

// Row `r` of the slab of one pass, as a row of the tile.
template <uint32_t TM, uint32_t BANDS>
HS_DEVICE uint32_t slab_row(uint32_t r, uint32_t pass) {
  return (r / 16) * (TM / BANDS) + pass * 16 + r % 16;
}

HS_DEVICE void slab8(float (&v)[8], const float* from) {  // 32-byte aligned
  const float4 a = *reinterpret_cast<const float4*>(from);
  const float4 b = *reinterpret_cast<const float4*>(from + 4);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
  v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// The first element of eight of a part's sums: [splits][m][n], or 2n where gated.
HS_DEVICE uint64_t of_part(const Product& p, uint32_t part, uint64_t i, uint64_t j) {
  const uint64_t columns = (p.flags & GATED) != 0 ? 2 * p.n : p.n;
  return (part * p.m + i) * columns + j;
}

HS_DEVICE uint32_t at_most_8(uint64_t left) { return left < 8 ? static_cast<uint32_t>(left) : 8u; }

// One slab into D stored [m,n].
template <uint32_t TM, uint32_t TN, class Sums>
HS_DEVICE void slab_to_rows(const Product& p, const Tile& t, const float* slab, uint32_t pass) {
  const bool gated = (p.flags & GATED) != 0;
  const uint32_t eights = gated ? TN / 16 : TN / 8;
#pragma unroll 1
  for (uint32_t q = thread_index(); q < Slab<TN, Sums::BANDS>::ROWS * eights; q += Sums::THREADS) {
    const uint32_t r = q / eights, column = q % eights * 8;
    const uint64_t i = t.row + slab_row<TM, Sums::BANDS>(r, pass), j = t.column + column;
    if (i >= t.m || j >= p.n) continue;
    const float* from = slab + r * Slab<TN, Sums::BANDS>::LD + column;
    float v[8];
    slab8(v, from);
    result8(p, t, v, [&](float (&up)[8]) { slab8(up, from + TN / 2); }, i, j, at_most_8(p.n - j));
  }
}

// One slab into D stored [n,m].
template <uint32_t TM, uint32_t TN, class Sums>
HS_DEVICE void slab_to_columns(const Product& p, const Tile& t, const float* slab, uint32_t pass) {
#pragma unroll 1
  for (uint32_t q = thread_index(); q < Slab<TN, Sums::BANDS>::ROWS / 8 * TN; q += Sums::THREADS) {
    const uint32_t r = q / TN * 8, column = q % TN;
    const uint64_t i = t.row + slab_row<TM, Sums::BANDS>(r, pass), j = t.column + column;
    if (i >= t.m || j >= p.n) continue;
    float v[8];
#pragma unroll
    for (uint32_t e = 0; e < 8; e++) v[e] = slab[(r + e) * Slab<TN, Sums::BANDS>::LD + column];
    result8_transposed(p, t, v, i, j, at_most_8(t.m - i));
  }
}

// One slab of a part of k into the workspace, as it is.
template <uint32_t TM, uint32_t TN, class Sums>
HS_DEVICE void slab_to_workspace(const Product& p, const Tile& t, const float* slab, uint32_t pass) {
  const bool gated = (p.flags & GATED) != 0;
  // (What few products need does not stay in registers.)
#pragma unroll 1
  for (uint32_t q = again(thread_index()); q < Slab<TN, Sums::BANDS>::ROWS * (TN / 8); q += Sums::THREADS) {
    const uint32_t r = q / (TN / 8), column = q % (TN / 8) * 8;
    const bool up = gated && column >= TN / 2;
    const uint64_t i = t.row + slab_row<TM, Sums::BANDS>(r, pass), j = t.column + (up ? column - TN / 2 : column);
    if (i >= t.m || j >= p.n) continue;
    float v[8];
    slab8(v, slab + r * Slab<TN, Sums::BANDS>::LD + column);
    store8_f32(v, p.workspace, of_part(p, t.part, i, up ? p.n + j : j), at_most_8(p.n - j));
  }
}

// Writes a wave's part of slab `pass`. Registers have no index, so each slab's sums are named in a branch of its
// own, which all threads take alike.
template <uint32_t SLABS, class Sums, uint32_t PASS = 0>
HS_DEVICE void write_slab(const Sums& sums, uint32_t pass, float* slab) {
  if (PASS + 1 == SLABS || pass == PASS) {
    sums.slab(PASS, slab);
    asm volatile("" : : "n"(PASS));  // no two branches are alike: merged, they would need an index
    return;
  }
  if constexpr (PASS + 1 < SLABS) write_slab<SLABS, Sums, PASS + 1>(sums, pass, slab);
}

// All of a tile. Nothing else may be using the shared memory any more once every thread is here.
template <uint32_t TM, uint32_t TN, class Sums>
HS_DEVICE void epilogue(const Product& product, const Tile& t, const Sums& sums, float* slab) {
  constexpr uint32_t PASSES = TM / (16 * Sums::BANDS);
#pragma unroll 1
  for (uint32_t pass = 0; pass < PASSES; pass++) {
    const Product& p = reload(product);
    barrier();  // what was read from this memory has been
    write_slab<PASSES>(sums, pass, slab);
    barrier();
    if (p.workspace != 0) {
      slab_to_workspace<TM, TN, Sums>(p, t, slab, pass);
    } else if ((p.flags & D_TRANSPOSED) != 0) {
      slab_to_columns<TM, TN, Sums>(p, t, slab, pass);
    } else {
      slab_to_rows<TM, TN, Sums>(p, t, slab, pass);
    }
  }
}

}  // namespace hs
