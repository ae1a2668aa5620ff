// SGD: g = fma(w, p, g); b = fma(b1, b, c1·g); d = nesterov ? fma(n, b, g) : b; p = fma(-a, d, p).
// In a tensor's first step b1 = 0 and c1 = 1. Without momentum, d = g.
#pragma once
#include "optim/rules/constants.h"

namespace hs {

struct Sgd {
  static constexpr int SLOTS = 0;
  static constexpr bool STORES_SLOTS = false;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static Scalars constants(const Group& group, const Progress& t, double lr, double decay) {
    Scalars s = hs::constants(group, lr, decay);
    s.n = s.b1;
    const bool first = t.step == 1;
    s.b1 = first ? 0.0f : s.b1;
    s.c1 = first ? 1.0f : static_cast<float>(1.0 - group.extra);
    return s;
  }
  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&)[1]) {
    return fmaf(-s.a, fmaf(s.w, p, g), p);
  }
};

struct SgdMomentum {
  static constexpr int SLOTS = 1;  // b
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[1]) {
    g = fmaf(s.w, p, g);
    slot[0] = fmaf(s.b1, slot[0], s.c1 * g);
    const float d = (s.flags & 1) != 0 ? fmaf(s.n, slot[0], g) : slot[0];
    return fmaf(-s.a, d, p);
  }
};

}  // namespace hs
