// AdamW: m = fma(b1, m, c1·g); v = fma(b2, v, (c2·g)·g); p -= fma(w, p, a·(m / fma(√v, s, eps))).
// Decay is summed into the update: as a rounding of its own it would vanish at small lr·λ.
#pragma once
#include "optim/rules/constants.h"

namespace hs {

HS_DEVICE void moments(const Scalars& s, float g, float& m, float& v) {
  m = fmaf(s.b1, m, s.c1 * g);
  v = fmaf(s.b2, v, (s.c2 * g) * g);
}

HS_DEVICE float larger(float v, float largest) { return v > largest ? v : largest; }

struct AdamW {
  static constexpr int SLOTS = 2;  // m, v
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static Scalars constants(const Group& group, const Progress& t, double lr, double decay) {
    Scalars s = hs::constants(group, lr, decay);
    s.a = static_cast<float>(lr / (1.0 - t.beta1_power));
    s.w = static_cast<float>(lr * decay);
    s.s = static_cast<float>(1.0 / square_root(1.0 - t.beta2_power));
    return s;
  }
  HS_DEVICE static float update(const Scalars& s, float p, float m, float v) {
    return p - fmaf(s.w, p, s.a * (m / fmaf(square_root(v), s.s, s.eps)));
  }
  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[2]) {
    moments(s, g, slot[0], slot[1]);
    return update(s, p, slot[0], slot[1]);
  }
};

// With the largest v so far in v's place (AMSGrad).
struct AdamWMax {
  static constexpr int SLOTS = 3;  // m, v, largest v
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[3]) {
    moments(s, g, slot[0], slot[1]);
    slot[2] = larger(slot[1], slot[2]);
    return AdamW::update(s, p, slot[0], slot[2]);
  }
};

}  // namespace hs
