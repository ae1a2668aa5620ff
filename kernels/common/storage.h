// Storage types: elements in memory, f32 in registers. A type is uniform over a launch, so it is a
// branch that every thread takes alike, outside the arithmetic.
#pragma once
#include "target.h"

namespace hs {

// Numbers of halfstep::Dtype.
constexpr uint32_t BF16 = 0;
constexpr uint32_t F16 = 1;
constexpr uint32_t F32 = 2;

HS_DEVICE uint64_t element_bytes(uint32_t type) { return type == F32 ? 4 : 2; }

// NaN or infinite: the exponent is all ones. Bits, since a compiler may reason about floats.
HS_DEVICE bool non_finite(float x) { return (bits(x) & 0x7f800000u) == 0x7f800000u; }

HS_DEVICE float widen_bf16(uint16_t x) { return from_bits(static_cast<uint32_t>(x) << 16); }

// To nearest, ties to even; NaN stays NaN (quiet), overflow is infinite.
HS_DEVICE uint16_t narrow_bf16(float x) {
  const uint32_t b = bits(x);
  const uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  const uint32_t quiet = (b >> 16) | 0x40u;
  return static_cast<uint16_t>((b & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

HS_DEVICE float load1(uint64_t base, uint64_t i, uint32_t type) {
  if (type == F32) return reinterpret_cast<const float*>(base)[i];
  const uint16_t x = reinterpret_cast<const uint16_t*>(base)[i];
  return type == BF16 ? widen_bf16(x) : widen_f16(x);
}

// Stores `x` rounded to the type, and returns what was stored.
HS_DEVICE float store1(uint64_t base, uint64_t i, uint32_t type, float x) {
  if (type == F32) {
    reinterpret_cast<float*>(base)[i] = x;
    return x;
  }
  const uint16_t narrow = type == BF16 ? narrow_bf16(x) : narrow_f16(x);
  reinterpret_cast<uint16_t*>(base)[i] = narrow;
  return type == BF16 ? widen_bf16(narrow) : widen_f16(narrow);
}

HS_DEVICE uint32_t low(uint32_t x) { return x & 0xffffu; }
HS_DEVICE uint32_t high(uint32_t x) { return x >> 16; }

// Eight elements from `i` on, `count` of which are there; the others read as 0. 16 bytes at a time
// where the address allows.
HS_DEVICE void load8(float (&to)[8], uint64_t base, uint64_t i, uint32_t count, uint32_t type) {
  const uint64_t address = base + i * element_bytes(type);
  if (count == 8 && address % 16 == 0) {
    const uint4 a = load16(address);
    if (type == F32) {
      const uint4 b = load16(address + 16);
      const uint32_t words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int e = 0; e < 8; e++) to[e] = from_bits(words[e]);
      return;
    }
    const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int w = 0; w < 4; w++) {
      const uint16_t first = static_cast<uint16_t>(low(words[w]));
      const uint16_t second = static_cast<uint16_t>(high(words[w]));
      to[2 * w] = type == BF16 ? widen_bf16(first) : widen_f16(first);
      to[2 * w + 1] = type == BF16 ? widen_bf16(second) : widen_f16(second);
    }
    return;
  }
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) to[e] = e < count ? load1(base, i + e, type) : 0.0f;
}

// Stores the first `count` of eight, rounded to the type; they become what was stored.
HS_DEVICE void store8(float (&from)[8], uint64_t base, uint64_t i, uint32_t count, uint32_t type) {
  const uint64_t address = base + i * element_bytes(type);
  if (count == 8 && address % 16 == 0) {
    if (type == F32) {
      store16(address, uint4{bits(from[0]), bits(from[1]), bits(from[2]), bits(from[3])});
      store16(address + 16, uint4{bits(from[4]), bits(from[5]), bits(from[6]), bits(from[7])});
      return;
    }
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; w++) {
      const uint16_t a = type == BF16 ? narrow_bf16(from[2 * w]) : narrow_f16(from[2 * w]);
      const uint16_t b = type == BF16 ? narrow_bf16(from[2 * w + 1]) : narrow_f16(from[2 * w + 1]);
      words[w] = a | static_cast<uint32_t>(b) << 16;
      from[2 * w] = type == BF16 ? widen_bf16(a) : widen_f16(a);
      from[2 * w + 1] = type == BF16 ? widen_bf16(b) : widen_f16(b);
    }
    store16(address, uint4{words[0], words[1], words[2], words[3]});
    return;
  }
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    if (e < count) from[e] = store1(base, i + e, type, from[e]);
  }
}

}  // namespace hs
