// How the loss scale follows overflows: src/optim/scale.rs, where the presets are.
#pragma once
#include "target.h"
#include "params.h"

namespace hs {

// One step of scale, growth tracker and hysteresis left.
HS_DEVICE void advance_scale(const ScaleRules& rules, Status& status, bool overflow) {
  if (rules.dynamic == 0) return;
  if (overflow) {
    status.growth_tracker = 0;
    if (status.hysteresis > 1) {
      status.hysteresis -= 1;
      return;
    }
    const float lower = static_cast<float>(static_cast<double>(status.scale) * rules.backoff);
    status.scale = lower > rules.min ? lower : rules.min;
    return;
  }
  const uint32_t tracker = status.growth_tracker == 0xffffffffu ? 0xffffffffu : status.growth_tracker + 1;
  const bool grows = tracker == static_cast<uint64_t>(rules.interval) + rules.late;
  if (grows || rules.refill == 1) status.hysteresis = rules.hysteresis;
  status.growth_tracker = grows ? rules.late : tracker;
  if (!grows) return;
  const float higher = static_cast<float>(static_cast<double>(status.scale) * rules.growth);
  if (higher <= rules.max) status.scale = higher;
}

}  // namespace hs
