// Adagrad: g = fma(w, p, g); h = fma(g, g, h); p -= a·(g / (√h + eps)).
#pragma once
#include "optim/rules/constants.h"

namespace hs {

struct Adagrad {
  static constexpr int SLOTS = 1;  // h
  static constexpr bool STORES_SLOTS = true;
  static constexpr bool READS_GRAD = true;

  HS_DEVICE static Scalars constants(const Group& group, const Progress& t, double lr, double decay) {
    Scalars s = hs::constants(group, lr, decay);
    const double before = static_cast<double>(t.step > 0 ? t.step - 1 : 0);
    s.a = static_cast<float>(lr / (1.0 + before * group.extra));
    return s;
  }
  HS_DEVICE static float apply(const Scalars& s, float g, float p, float (&slot)[1]) {
    g = fmaf(s.w, p, g);
    slot[0] = fmaf(g, g, slot[0]);
    return p - s.a * (g / (square_root(slot[0]) + s.eps));
  }
};

}  // namespace hs
