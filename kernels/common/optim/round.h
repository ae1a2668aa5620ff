// Roundings to 16 bits beside the nearest, as src/optim/round.rs writes them down.
#pragma once
#include "storage.h"

namespace hs {

// Up with probability equal to the distance from the value below, in units of 2^-16 of the gap.
// Values of the type stay, NaN and ±Inf too; above the largest bf16 only the nearest will do.
HS_DEVICE uint16_t stochastic_bf16(float value, uint16_t random) {
  const uint32_t b = bits(value);
  const uint32_t magnitude = b & 0x7fffffffu;
  const uint32_t up = magnitude >= 0x7f7f0000u ? 0x8000u : random;
  const uint32_t chosen = magnitude > 0x7f800000u ? b | 0x400000u : b + up;
  return static_cast<uint16_t>(chosen >> 16);
}

// Likewise; exact in units of 2^-13 of the gap for normal results, of 2^-16 for subnormal ones.
HS_DEVICE uint16_t stochastic_f16(float value, uint16_t random) {
  const uint32_t b = bits(value);
  const uint32_t sign = (b >> 16) & 0x8000u;
  const uint32_t magnitude = b & 0x7fffffffu;
  const uint32_t normal = ((magnitude + (random & 0x1fffu)) >> 13) - (112u << 10);
  // 2^-14 and less: units of 2^-24, in fixed point with 16 more bits (the product by 2^40 is exact).
  const uint32_t least = magnitude < 0x38800000u ? magnitude : 0x38800000u;
  const float scaled = from_bits(least) * 1099511627776.0f;
  const uint32_t subnormal = (static_cast<uint32_t>(static_cast<int32_t>(scaled)) + random) >> 16;
  const uint32_t rounded = magnitude < 0x38800000u ? subnormal : normal;
  return magnitude >= 0x477fe000u ? narrow_f16(value) : static_cast<uint16_t>(sign | rounded);
}

// Stores eight of a 16-bit type, rounded stochastically; they become what was stored. (Plans refuse
// f32 here: it has nothing to round.)
HS_DEVICE void store8_stochastic(float (&from)[8], const uint16_t (&random)[8], uint64_t base,
                                 uint64_t i, uint32_t count, uint32_t type) {
  uint16_t words[8];
#pragma unroll
  for (int e = 0; e < 8; e++) {
    words[e] = type == BF16 ? stochastic_bf16(from[e], random[e]) : stochastic_f16(from[e], random[e]);
    from[e] = type == BF16 ? widen_bf16(words[e]) : widen_f16(words[e]);
  }
  store8_words(words, base, i, count);
}

// f32 = bf16 and the 16 bits that make it whole again. The bf16 is the nearest, ties away from
// zero; NaN becomes the quiet NaN of its sign.
HS_DEVICE void split(float value, uint16_t& upper, uint16_t& lower) {
  uint32_t b = bits(value);
  if ((b & 0x7fffffffu) > 0x7f800000u) b = (b & 0x80000000u) | 0x7fc00000u;
  upper = static_cast<uint16_t>((b + 0x8000u) >> 16);
  lower = static_cast<uint16_t>(b);
}

HS_DEVICE float join(uint16_t upper, uint16_t lower) {
  const uint32_t top = (upper - (lower >> 15)) & 0xffffu;
  return from_bits(top << 16 | lower);
}

}  // namespace hs
