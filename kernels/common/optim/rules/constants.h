// What control makes of a group's hyper-parameters for one tensor in one step: f64 arithmetic, each
// constant rounded once. src/optim/rule.rs and the rules' files say the same in Rust.
#pragma once
#include "target.h"
#include "params.h"

namespace hs {

// The constants that every rule makes the same way.
HS_DEVICE Scalars constants(const Group& group, double lr, double decay) {
  Scalars s;
  s.a = static_cast<float>(lr);
  s.w = static_cast<float>(decay);
  s.b1 = static_cast<float>(group.beta1);
  s.c1 = static_cast<float>(1.0 - group.beta1);
  s.b2 = static_cast<float>(group.beta2);
  s.c2 = static_cast<float>(1.0 - group.beta2);
  s.s = 1.0f;
  s.eps = static_cast<float>(group.eps);
  s.n = 0.0f;
  s.flags = group.flags;
  s.active = 1;
  s.pad = 0;
  return s;
}

}  // namespace hs
