// control: partials -> the decision whether to step, the factor of every gradient, the next loss
// scale, and each tensor's counters and constants. One block; the host waits for nothing.
//
// All of it is f64 until the last rounding, in the order that src/optim/control.rs writes down: value
// k of all lists, one after the other, belongs to lane k mod 2,048; lanes fold by halves.
// Limiter: latency. 6,314 partials (1e8 parameters in 211 tensors) are 101 kB read by one block.
#pragma once
#include "fold.h"
#include "optim/rules/adagrad.h"
#include "optim/rules/adam.h"
#include "optim/rules/adamw.h"
#include "optim/rules/lamb.h"
#include "optim/rules/lion.h"
#include "optim/rules/sgd.h"
#include "optim/scale.h"
#include "optim/step.h"

namespace hs {

constexpr uint32_t NON_FINITE = 1;
constexpr uint32_t NORM_OVERFLOW = 2;
constexpr uint32_t NONE = 0xffffffffu;  // no tensor

constexpr uint32_t FAMILY_ADAMW = 0;
constexpr uint32_t FAMILY_ADAM = 1;
constexpr uint32_t FAMILY_SGD = 2;
constexpr uint32_t FAMILY_ADAGRAD = 3;
constexpr uint32_t FAMILY_LAMB = 4;
constexpr uint32_t FAMILY_LION = 5;

// The lists of partials summed up.
struct Summary {
  double sum_squares;
  uint64_t non_finite;
  uint32_t tensor;  // the first with a value that is not finite
};

// Every thread gets its part of the lists: lanes 8t … 8t + 7 of each 2,048.
HS_DEVICE Summary summarize(const Control& p, double* shared, uint64_t* counts, uint32_t* first) {
  const Source* sources = global<const Source>(p.sources);  // [source_count]
  const uint32_t t = thread_index();
  double lane[8] = {};
  uint64_t bad = 0;
  uint32_t tensor = NONE;
  uint64_t before = 0;  // values of the lists so far
  for (uint64_t list = 0; list < p.source_count; list++) {
    const Partial* partials = global<const Partial>(sources[list].partials);
    const uint64_t count = sources[list].count;
    // The first value of this list that lane 8t gets is a multiple of 2,048 (with 8t) from there.
    const uint64_t strip = before / STRIP * STRIP;
    for (uint64_t k = strip + 8 * t; k < before + count; k += STRIP) {
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) {
        if (k + e < before || k + e >= before + count) continue;
        const Partial partial = partials[k + e - before];
        lane[e] += partial.sum_squares;
        bad += partial.non_finite;
        if (partial.non_finite > 0 && partial.tensor < tensor) tensor = partial.tensor;
      }
    }
    before += count;
  }
  counts[t] = bad;
  first[t] = tensor;
  Summary summary = {fold(lane, shared, THREADS), 0, NONE};  // meets at barriers: all counts are there
  if (t == 0) {
    for (uint32_t other = 0; other < THREADS; other++) {
      summary.non_finite += counts[other];
      if (first[other] < summary.tensor) summary.tensor = first[other];
    }
  }
  return summary;
}

// Decides, and moves the loss scale on.
HS_DEVICE void decide(const Control& p, const Summary& summary, Status& status) {
  const double inverse = static_cast<double>(status.inverse);
  const double norm = square_root(summary.sum_squares) * (p.scaled == 1 ? inverse : 1.0);
  const double ratio = p.clip / (norm + 1e-6);
  const double clip = ratio < 1.0 ? ratio : 1.0;  // ∞/∞, without a limit, is no limit
  const double whole = p.carried == 1 ? clip / static_cast<double>(status.scale) : clip;
  const float factor = static_cast<float>(whole);
  // Partials of scaled gradients cannot show what unscaling by a scale below 1 will overflow.
  const bool unseen = p.scaled == 1 && norm > 3.4028234663852886e38;
  const bool vanishes = clip < 1.0 && factor < 1.17549435e-38f;
  uint32_t skip = APPLIED;
  if (p.check == 1) {
    if (summary.non_finite > 0) {
      skip = NON_FINITE;
    } else if (unseen || vanishes || !(norm < INFINITE)) {
      skip = NORM_OVERFLOW;
    }
  }
  const bool skipped = skip != APPLIED;
  status.skip = skip;
  status.attempts += 1;
  status.non_finite = summary.non_finite;
  status.norm = norm;
  status.clip = clip;
  status.used_scale = status.scale;
  status.factor = factor;
  status.tensor = summary.tensor;
  status.exhausted = skipped && p.scale.dynamic == 1 && status.scale <= p.scale.min;
  status.skips = !skipped ? 0 : status.skips == 0xffffffffu ? status.skips : status.skips + 1;
  status.applied += skipped ? 0 : 1;
  advance_scale(p.scale, status, skipped);
  status.inverse = static_cast<float>(1.0 / static_cast<double>(status.scale));
}

// Posts the outcome in the host's memory: whole if both numbers are the same.
HS_DEVICE void post(Post* to, const Status& status) {
  to->begun = status.attempts;
  fence_system();
  to->status = status;
  fence_system();
  to->ended = status.attempts;
}

// Moves one tensor a step on and makes its constants.
HS_DEVICE Scalars advance(const Control& p, const Tensor& tensor, const Group& group, Progress& t) {
  t.step += 1;
  t.beta1_power *= group.beta1;
  t.beta2_power *= group.beta2;
  const double lr = group.lr * tensor.lr_factor;
  const double decay = group.decay * tensor.decay_factor;
  switch (p.family) {
    case FAMILY_ADAM: return Adam::constants(group, t, lr, decay);
    case FAMILY_SGD: return Sgd::constants(group, t, lr, decay);
    case FAMILY_ADAGRAD: return Adagrad::constants(group, t, lr, decay);
    case FAMILY_LAMB: return Lamb::constants(group, t, lr, decay);
    case FAMILY_LION: return Lion::constants(group, t, lr, decay);
    default: return AdamW::constants(group, t, lr, decay);
  }
}

HS_DEVICE void control(const Control& p) {
  HS_SHARED double shared[FOLD_DOUBLES];
  HS_SHARED uint64_t counts[THREADS];
  HS_SHARED uint32_t first[THREADS];
  HS_SHARED uint32_t skip;
  const Tensor* tensors = global<const Tensor>(p.tensors);  // [tensor_count]
  const Group* groups = global<const Group>(p.groups);      // [group_count]
  const uint64_t* grads = global<const uint64_t>(p.grads);  // [tensor_count]
  Progress* progress = global<Progress>(p.progress);        // [tensor_count]
  Scalars* scalars = global<Scalars>(p.scalars);            // [tensor_count]
  const Summary summary = summarize(p, shared, counts, first);
  if (thread_index() == 0) {
    Status& status = *global<Status>(p.status);
    Status next = status;
    decide(p, summary, next);
    status = next;
    skip = next.skip;
    post(global<Post>(p.post), next);
  }
  barrier();
  for (uint64_t row = thread_index(); row < p.tensor_count; row += THREADS) {
    const Tensor& tensor = tensors[row];
    const Group& group = groups[tensor.group];
    Scalars s;
    if (skip == APPLIED && grads[row] != 0) {
      Progress t = progress[row];
      s = advance(p, tensor, group, t);
      progress[row] = t;
    } else {
      s = constants(group, 0.0, 0.0);
      s.active = 0;
    }
    scalars[row] = s;
  }
}

}  // namespace hs
