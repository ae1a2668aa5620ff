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
  if (type == F32) return from_bits(load4(base + 4 * i));
  const uint16_t x = load2(base + 2 * i);
  return type == BF16 ? widen_bf16(x) : widen_f16(x);
}

// Stores an element rounded to the nearest of the type, and returns what was stored.
HS_DEVICE float store1(float x, uint64_t base, uint64_t i, uint32_t type) {
  if (type == F32) {
    store4(base + 4 * i, bits(x));
    return x;
  }
  const uint16_t word = type == BF16 ? narrow_bf16(x) : narrow_f16(x);
  store2(base + 2 * i, word);
  return type == BF16 ? widen_bf16(word) : widen_f16(word);
}

HS_DEVICE uint32_t low(uint32_t x) { return x & 0xffffu; }
HS_DEVICE uint32_t high(uint32_t x) { return x >> 16; }

// Eight 16-bit words from word `i` on, `count` of which are there; the others read as 0. 16 bytes at
// once where the address allows.
HS_DEVICE void load8_words(uint16_t (&to)[8], uint64_t base, uint64_t i, uint32_t count) {
  const uint64_t address = base + 2 * i;
  if (count == 8 && address % 16 == 0) {
    const uint4 a = load16(address);
    const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int w = 0; w < 4; w++) {
      to[2 * w] = static_cast<uint16_t>(low(words[w]));
      to[2 * w + 1] = static_cast<uint16_t>(high(words[w]));
    }
    return;
  }
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    to[e] = 0;
    if (e < count) to[e] = load2(address + 2 * e);
  }
}

// Stores the first `count` of eight 16-bit words.
HS_DEVICE void store8_words(const uint16_t (&from)[8], uint64_t base, uint64_t i, uint32_t count) {
  const uint64_t address = base + 2 * i;
  if (count == 8 && address % 16 == 0) {
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; w++) {
      words[w] = from[2 * w] | static_cast<uint32_t>(from[2 * w + 1]) << 16;
    }
    store16(address, uint4{words[0], words[1], words[2], words[3]});
    return;
  }
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    if (e < count) store2(address + 2 * e, from[e]);
  }
}

// Eight f32 at a multiple of 16 bytes.
HS_DEVICE void load8_aligned(float (&to)[8], uint64_t address) {
  const uint4 a = load16(address), b = load16(address + 16);
  const uint32_t words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int e = 0; e < 8; e++) to[e] = from_bits(words[e]);
}

HS_DEVICE void store8_aligned(const float (&from)[8], uint64_t address) {
  store16(address, uint4{bits(from[0]), bits(from[1]), bits(from[2]), bits(from[3])});
  store16(address + 16, uint4{bits(from[4]), bits(from[5]), bits(from[6]), bits(from[7])});
}

// The same as of words for f32; what is not there is `absent`.
HS_DEVICE void load8_f32(float (&to)[8], uint64_t base, uint64_t i, uint32_t count, float absent = 0.0f) {
  const uint64_t address = base + 4 * i;
  if (count == 8 && address % 16 == 0) return load8_aligned(to, address);
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    to[e] = absent;
    if (e < count) to[e] = from_bits(load4(address + 4 * e));
  }
}

HS_DEVICE void store8_f32(const float (&from)[8], uint64_t base, uint64_t i, uint32_t count) {
  const uint64_t address = base + 4 * i;
  if (count == 8 && address % 16 == 0) return store8_aligned(from, address);
#pragma unroll
  for (uint32_t e = 0; e < 8; e++) {
    if (e < count) store4(address + 4 * e, bits(from[e]));
  }
}

// Eight elements of a type from element `i` on, as f32; see `load8_words`.
HS_DEVICE void load8(float (&to)[8], uint64_t base, uint64_t i, uint32_t count, uint32_t type) {
  if (type == F32) return load8_f32(to, base, i, count);
  uint16_t words[8];
  load8_words(words, base, i, count);
#pragma unroll
  for (int e = 0; e < 8; e++) to[e] = type == BF16 ? widen_bf16(words[e]) : widen_f16(words[e]);
}

// Stores the first `count` of eight, each rounded to the nearest of the type; they become what was
// stored.
HS_DEVICE void store8(float (&from)[8], uint64_t base, uint64_t i, uint32_t count, uint32_t type) {
  if (type == F32) return store8_f32(from, base, i, count);
  uint16_t words[8];
#pragma unroll
  for (int e = 0; e < 8; e++) {
    words[e] = type == BF16 ? narrow_bf16(from[e]) : narrow_f16(from[e]);
    from[e] = type == BF16 ? widen_bf16(words[e]) : widen_f16(words[e]);
  }
  store8_words(words, base, i, count);
}

}  // namespace hs
