// Operands on their way into shared memory, by the path that takes any of them: any address, leading
// dimension and size, both layouts, A times act'(z), subnormals flushed. Elements that are not there
// become 0 and are not read.
//
// A chunk is eight steps of k of one row of A or column of B.
#pragma once
#include "gemm/tile.h"

namespace hs {

template <uint32_t TYPE>
struct Chunk8 {
  uint16_t x[8];
};
template <>
struct Chunk8<F32> {
  float x[8];
};

// `f16`: elements of a chunk of bf16 are f16 that become bf16 later.
template <uint32_t TYPE>
HS_DEVICE void widen8(float (&to)[8], const Chunk8<TYPE>& from, bool f16) {
#pragma unroll
  for (int e = 0; e < 8; e++) to[e] = TYPE == BF16 && !f16 ? widen_bf16(from.x[e]) : widen_f16(from.x[e]);
}
template <>
HS_DEVICE void widen8<F32>(float (&to)[8], const Chunk8<F32>& from, bool) {
#pragma unroll
  for (int e = 0; e < 8; e++) to[e] = from.x[e];
}

template <uint32_t TYPE>
HS_DEVICE void narrow8(Chunk8<TYPE>& to, const float (&from)[8], bool f16) {
#pragma unroll
  for (int e = 0; e < 8; e++) to.x[e] = TYPE == BF16 && !f16 ? narrow_bf16(from[e]) : narrow_f16(from[e]);
}
template <>
HS_DEVICE void narrow8<F32>(Chunk8<F32>& to, const float (&from)[8], bool) {
#pragma unroll
  for (int e = 0; e < 8; e++) to.x[e] = from[e];
}

// Eight words side by side, the first `count` of which are there: by 16 bytes, by 4 or by 2, as the address allows, which is
// alike for all chunks of an operand.
HS_DEVICE void load8_side_by_side(uint16_t (&to)[8], uint64_t address, uint32_t count) {
  if (count == 8 && address % 16 == 0) return load8_words(to, address, 0, count);
  const bool pairs = address % 4 == 0;
#pragma unroll
  for (uint32_t e = 0; e < 8; e += 2) {
    uint32_t word = 0;
    if (pairs && e + 2 <= count) {
      word = load4(address + 2 * e);
    } else if (e < count) {
      word = load2(address + 2 * e);
      if (e + 1 < count) word |= static_cast<uint32_t>(load2(address + 2 * e + 2)) << 16;
    }
    to[e] = static_cast<uint16_t>(low(word));
    to[e + 1] = static_cast<uint16_t>(high(word));
  }
}

// Stored [lane][k] (`TOGETHER`: a chunk's elements side by side), or [k][lane]. `NEGATIVE`: f32 elements that are
// not there are -0.
template <uint32_t TYPE, bool TOGETHER, bool NEGATIVE = false>
HS_DEVICE void load_chunk(Chunk8<TYPE>& to, uint64_t base, uint64_t ld, uint64_t lane, uint64_t k,
                          uint32_t count) {
  if constexpr (TOGETHER && TYPE == F32) {
    load8_f32(to.x, base, lane * ld + k, count, NEGATIVE ? -0.0f : 0.0f);
  } else if constexpr (TOGETHER) {
    load8_side_by_side(to.x, base + 2 * (lane * ld + k), count);
  } else {
#pragma unroll
    for (uint32_t e = 0; e < 8; e++) {
      to.x[e] = TYPE == F32 && NEGATIVE ? -0.0f : 0;
      if (e >= count) continue;
      const uint64_t i = (k + e) * ld + lane;
      if constexpr (TYPE == F32) to.x[e] = from_bits(load4(base + 4 * i));
      else to.x[e] = load2(base + 2 * i);
    }
  }
}

template <uint32_t TYPE>
HS_DEVICE void flush8(Chunk8<TYPE>& x) {
  if constexpr (TYPE != F32) {
    constexpr uint32_t exponent = TYPE == BF16 ? 0x7f80u : 0x7c00u;
#pragma unroll
    for (int e = 0; e < 8; e++) x.x[e] &= (x.x[e] & exponent) == 0 ? 0x8000u : 0xffffu;
  }
}

// f16 as bf16, to nearest even: a factor of a product of bf16 whose operands are f16.
template <uint32_t TYPE>
HS_DEVICE void through_bf16(Chunk8<TYPE>& x) {
  if constexpr (TYPE == BF16) {
#pragma unroll
    for (int e = 0; e < 8; e++) x.x[e] = narrow_bf16(widen_f16(x.x[e]));
  }
}

// A as the product reads it: times act'(z) where the role says so, rounded, flushed. What is not there of f32 is -0:
// added to a sum, -0·0 leaves it as it is, a -0 that underflow has made too.
template <uint32_t TYPE, bool TOGETHER>
HS_DEVICE void load_a(Chunk8<TYPE>& to, const Product& p, const Tile& t, uint64_t lane, uint64_t k,
                      uint32_t count) {
  load_chunk<TYPE, TOGETHER, true>(to, like_a(p, t, p.a, p.lda, p.stride_a), p.lda, lane, k, count);
  if (p.role == ROLE_FUSED_A) {
    Chunk8<TYPE> z;
    // What few products need does not stay in registers.
    const Product& q = reload(p);
    count = again(count);
    load_chunk<TYPE, TOGETHER>(z, like_a(q, t, q.z, q.ldz, q.stride_z), q.ldz, lane, k, count);
    const bool f16 = (q.flags & THROUGH_BF16) != 0;
    float x[8], slope[8];
    widen8<TYPE>(x, to, f16);
    widen8<TYPE>(slope, z, f16);
    derive8(slope, q.activation);
#pragma unroll
    for (int e = 0; e < 8; e++) x[e] *= slope[e];
    narrow8<TYPE>(to, x, f16);
  }
  if ((p.flags & FLUSH) != 0) flush8<TYPE>(to);
}

template <uint32_t TYPE, bool TOGETHER>
HS_DEVICE void load_b(Chunk8<TYPE>& to, const Product& p, const Tile& t, uint64_t lane, uint64_t k,
                      uint32_t count) {
  load_chunk<TYPE, TOGETHER>(to, start_of_b(p, t), p.ldb, lane, k, count);
  if ((p.flags & FLUSH) != 0) flush8<TYPE>(to);
}

// The column of B behind column `c` of a tile of `TN`: where gated, the first half are columns of the gate
// and the second the same ones of `up`. `there` is whether D has it.
template <uint32_t TN>
HS_DEVICE uint64_t column_of_b(const Product& p, const Tile& t, uint32_t c, bool& there) {
  const bool gated = (p.flags & GATED) != 0, up = gated && c >= TN / 2;
  const uint64_t j = t.column + (up ? c - TN / 2 : c);
  there = j < p.n;
  return up ? p.n + j : j;
}

}  // namespace hs
