// Activations and their derivatives: the sequences of IEEE f32 operations of src/gemm/activation, to the
// bit. Without branches inside; which one is uniform over a launch.
//
// The coefficients and their derivation are documented there, once.
#pragma once
#include "storage.h"

namespace hs {

// Numbers of halfstep::gemm::Activation.
constexpr uint32_t ACTIVATION_NONE = 0;
constexpr uint32_t RELU = 1;
constexpr uint32_t GELU_TANH = 2;
constexpr uint32_t GELU_ERF = 3;
constexpr uint32_t SILU = 4;

HS_DEVICE float absolute(float x) { return from_bits(bits(x) & 0x7fffffffu); }
// NaN passes both.
HS_DEVICE float at_least(float x, float low) { return x < low ? low : x; }
HS_DEVICE float at_most(float x, float high) { return high < x ? high : x; }
HS_DEVICE float limited(float x, float limit) { return at_least(at_most(x, limit), -limit); }

// e^x for x <= 0; 0 below -80.
HS_DEVICE float exponential(float x) {
  constexpr float MAGIC = 12582912.0f;  // adding 1.5·2^23 leaves the nearest integer in the low bits
  const float kept = at_least(x, -80.0f);
  const float shifted = fmaf(kept, 1.44269504088896340736f, MAGIC);
  const float n = shifted - MAGIC;
  float r = fmaf(n, -0.69314575f, kept);
  r = fmaf(n, -1.4286068e-6f, r);
  float p = 0.0013836796f;
  p = fmaf(p, r, 0.008374839f);
  p = fmaf(p, r, 0.04166823f);
  p = fmaf(p, r, 0.1666642f);
  p = fmaf(p, r, 0.4999999f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const uint32_t power = (bits(shifted) - bits(MAGIC) + 127u) << 23;
  return x < -80.0f ? 0.0f : p * from_bits(power);
}

HS_DEVICE float logistic(float x) {
  const float e = exponential(-absolute(x));  // at most 1: nothing overflows on either side
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// σ(x), and 1 − σ(x) without cancellation.
HS_DEVICE void logistic_and_rest(float x, float& s, float& rest) {
  const float e = exponential(-absolute(x));
  const float large = 1.0f / (1.0f + e);
  const float small = e * large;
  s = x < 0.0f ? small : large;
  rest = x < 0.0f ? large : small;
}

// Φ(x), and e^(−x²/2).
HS_DEVICE float normal(float x, float& e) {
  const float a = at_most(absolute(x), 20.0f);
  const float square = a * a;
  const float rest = fmaf(a, a, -square);
  e = exponential(-0.5f * square);
  e = fmaf(-0.5f * rest, e, e);
  const float t = 1.0f / fmaf(a, 0.35f, 1.0f);
  float g = -0.0291581f;
  g = fmaf(g, t, 0.14403193f);
  g = fmaf(g, t, -0.25584097f);
  g = fmaf(g, t, 0.15932183f);
  g = fmaf(g, t, -0.023213716f);
  g = fmaf(g, t, 0.10555303f);
  g = fmaf(g, t, 0.11982117f);
  g = fmaf(g, t, 0.13986352f);
  g = fmaf(g, t, 0.1396213f);
  const float tail = e * (g * t);
  return x < 0.0f ? tail : 1.0f - tail;
}

constexpr float GELU_A = 1.5957692f;  // 2√(2/π)
constexpr float GELU_B = 0.071354814f;

template <uint32_t ACTIVATION>
HS_DEVICE float apply(float z) {
  if (ACTIVATION == RELU) return at_least(z, 0.0f);
  if (ACTIVATION == SILU) {
    z = at_least(z, -110.0f);
    return z * logistic(z);
  }
  z = at_least(z, -30.0f);  // keeps −Inf·0 away
  if (ACTIVATION == GELU_TANH) return z * logistic(z * fmaf(z * z, GELU_B, GELU_A));
  float e;
  return z * normal(z, e);
}

template <uint32_t ACTIVATION>
HS_DEVICE float derivative(float z) {
  // What is left besides above and below 0 is ±0 or NaN, and its own derivative.
  if (ACTIVATION == RELU) return 0.0f < z ? 1.0f : (z < 0.0f ? 0.0f : z);
  float s, rest;
  if (ACTIVATION == SILU) {
    z = limited(z, 110.0f);
    logistic_and_rest(z, s, rest);
    return fmaf(z * rest, s, s);
  }
  z = limited(z, 30.0f);
  if (ACTIVATION == GELU_TANH) {
    const float square = z * z;
    logistic_and_rest(z * fmaf(square, GELU_B, GELU_A), s, rest);
    return fmaf(z * fmaf(square, 3.0f * GELU_B, GELU_A) * s, rest, s);
  }
  float e;
  const float cdf = normal(z, e);
  return fmaf(z * 0.3989423f, e, cdf);
}

// v = act(v), eight at a time so that the choice is made once.
HS_DEVICE void apply8(float (&v)[8], uint32_t activation) {
  if (activation == ACTIVATION_NONE) return;
#pragma unroll
  for (int e = 0; e < 8; e++) {
    switch (activation) {
      case RELU: v[e] = apply<RELU>(v[e]); break;
      case GELU_TANH: v[e] = apply<GELU_TANH>(v[e]); break;
      case GELU_ERF: v[e] = apply<GELU_ERF>(v[e]); break;
      default: v[e] = apply<SILU>(v[e]);
    }
  }
}

// v = act'(v).
HS_DEVICE void derive8(float (&v)[8], uint32_t activation) {
  if (activation == ACTIVATION_NONE) {
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = 1.0f;
    return;
  }
#pragma unroll
  for (int e = 0; e < 8; e++) {
    switch (activation) {
      case RELU: v[e] = derivative<RELU>(v[e]); break;
      case GELU_TANH: v[e] = derivative<GELU_TANH>(v[e]); break;
      case GELU_ERF: v[e] = derivative<GELU_ERF>(v[e]); break;
      default: v[e] = derivative<SILU>(v[e]);
    }
  }
}

// A subnormal of the 16-bit type becomes a zero of its sign. f32 is never flushed.
HS_DEVICE float flushed(float x, uint32_t type) {
  const uint32_t smallest = type == BF16 ? 0x00800000u : 0x38800000u;  // 2^-126, 2^-14
  return type != F32 && (bits(x) & 0x7fffffffu) < smallest ? from_bits(bits(x) & 0x80000000u) : x;
}

HS_DEVICE float rounded(float x, uint32_t type) {
  if (type == F32) return x;
  return type == BF16 ? widen_bf16(narrow_bf16(x)) : widen_f16(narrow_f16(x));
}

// Rounds to the type, flushes where asked, and stores. (Rounding what is rounded changes nothing, but
// a subnormal that rounds up to a normal number stays.)
HS_DEVICE void store8_result(float (&v)[8], uint64_t base, uint64_t i, uint32_t count, uint32_t type,
                             bool flush) {
  if (flush) {
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = flushed(rounded(v[e], type), type);
  }
  store8(v, base, i, count, type);
}
HS_DEVICE void store1_result(float x, uint64_t base, uint64_t i, uint32_t type, bool flush) {
  store1(flush ? flushed(rounded(x, type), type) : x, base, i, type);
}

}  // namespace hs
