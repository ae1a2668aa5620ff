// Adam: g = fma(w, p, g); moments as AdamW's; p -= a·(m / fma(√v, s, eps)).
#pragma once
#include "optim/rules/adamw.h"

namespace hs {

struct Adam {
  static constexpr int SLOTS = 2;  // m, v
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static Scalars constants(const Group& group, const Progress& t, double lr, double decay) {
    Scalars s = hs::constants(group, lr, decay);
    s.a = static_cast<float>(lr / (1.0 - t.beta1_power));
    s.s = static_cast<float>(1.0 / square_root(1.0 - t.beta2_power));
    return s;
  }
  HS_DEVICE static float update(const Scalars& s, float p, float m, float v) {
    return p - s.a * (m / fmaf(square_root(v), s.s, s.eps));
  }
  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[2]) {
    moments(s, fmaf(s.w, p, g), slot[0], slot[1]);
    return update(s, p, slot[0], slot[1]);
  }
};

// With the largest v so far in v's place (AMSGrad).
struct AdamMax {
  static constexpr int SLOTS = 3;  // m, v, largest v
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[3]) {
    moments(s, fmaf(s.w, p, g), slot[0], slot[1]);
    slot[2] = larger(slot[1], slot[2]);
    return Adam::update(s, p, slot[0], slot[2]);
  }
};

}  // namespace hs
