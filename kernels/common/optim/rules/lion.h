// Lion: c = fma(b1, m, c1·g); p -= fma(w, p, a·sign(c)); m = fma(b2, m, c2·g). sign(0) = 0, sign of
// NaN is NaN.
#pragma once
#include "optim/rules/constants.h"

namespace hs {

struct Lion {
  static constexpr int SLOTS = 1;  // m
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static Scalars constants(const Group& group, const Progress&, double lr, double decay) {
    Scalars s = hs::constants(group, lr, decay);
    s.w = static_cast<float>(lr * decay);
    return s;
  }
  HS_DEVICE static float sign(float c) {
    const float one = c > 0.0f ? 1.0f : -1.0f;
    return c < 0.0f || c > 0.0f ? one : c;  // ±0 and NaN are their own signs
  }
  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[1]) {
    const float c = fmaf(s.b1, slot[0], s.c1 * g);
    slot[0] = fmaf(s.b2, slot[0], s.c2 * g);
    return p - fmaf(s.w, p, s.a * sign(c));
  }
};

}  // namespace hs
