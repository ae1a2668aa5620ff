// LAMB: moments as AdamW's; u = fma(w, p, (m·n) / fma(√v, s, eps)); p = fma(-a, u, p), a being
// lr·‖p‖/‖u‖ over the tensor. Three rows: moments and norms; ratios; the update.
#pragma once
#include "optim/rules/adamw.h"

namespace hs {

struct Lamb {
  HS_DEVICE static Scalars constants(const Group& group, const Progress& t, double lr, double decay) {
    Scalars s = hs::constants(group, lr, decay);
    s.n = static_cast<float>(1.0 / (1.0 - t.beta1_power));
    s.s = static_cast<float>(1.0 / square_root(1.0 - t.beta2_power));
    return s;
  }
  // The direction, decay included.
  HS_DEVICE static float direction(const Scalars& s, float p, float m, float v) {
    return fmaf(s.w, p, (m * s.n) / fmaf(square_root(v), s.s, s.eps));
  }
};

// The last row: the direction is made again from the stored moments, which it leaves.
struct LambApply {
  static constexpr int SLOTS = 2;  // m, v
  static constexpr bool STORES_SLOTS = false;
  static constexpr bool READS_GRAD = false;

  HS_DEVICE static float apply(const Scalars& s, float, float p, float (&slot)[2]) {
    return fmaf(-s.a, Lamb::direction(s, p, slot[0], slot[1]), p);
  }
};

}  // namespace hs
