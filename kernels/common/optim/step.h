// step: one rule's update of every tensor that has a gradient, all groups in one launch.
//
//   g = factor · gradient;  (master, slots) = rule(g, master, slots);  parameter = round(master)
//
// Nothing is written if `control` decided to skip; gradients are never written. Deterministic, and
// independent of the grid: elements do not meet, and random bits belong to elements.
// Limiter: memory. AdamW with bf16 gradients, f32 master and moments and bf16 parameters out moves 28
// bytes an element: 1e8 are 2.8 GB, 2.0 ms at 90 % of an A100-40's 1,555 GB/s, 2.1 ms at 80 % of an
// MI250X GCD's 1,638. About 50 instructions an element, a quarter of what either could issue.
#pragma once
#include "optim/master.h"
#include "walk.h"

namespace hs {

constexpr uint32_t APPLIED = 0;

// Elements that a block takes at a time: a quarter of a chunk, so that a million elements are work
// for a whole device.
constexpr uint32_t PIECE = 4096;
constexpr uint32_t PIECES = 4;  // of a chunk of 16,384

// One tensor's operands in this launch.
struct Operands {
  Param param;
  uint64_t grad;
  uint64_t slots[3];
  Key key;
  float factor;
  uint32_t grad_type;
  uint32_t moment;
};

HS_DEVICE Operands operands(const Step& p, const Status& status, const Tensor& tensor, uint32_t row) {
  Operands o;
  o.param = Param{global<const uint64_t>(p.params)[row], p.master, tensor.state, p.param, p.mode};
  o.grad = global<const uint64_t>(p.grads)[row];
  o.slots[0] = p.slot0;
  o.slots[1] = p.slot1;
  o.slots[2] = p.slot2;
  o.key = Key{p.seed, status.applied, tensor.id, 0};
  o.factor = status.factor;
  o.grad_type = p.grad;
  o.moment = p.moment;
  return o;
}

template <int SLOTS>
HS_DEVICE void load8_slots(float (&to)[SLOTS > 0 ? SLOTS : 1][8], const Operands& o, uint64_t i,
                           uint32_t count) {
#pragma unroll
  for (int n = 0; n < SLOTS; n++) load8(to[n], o.slots[n], o.param.state + i, count, o.moment);
}

// bf16 moments are rounded stochastically: to nearest, an average with β near 1 stops moving.
template <int SLOTS>
HS_DEVICE void store8_slots(float (&from)[SLOTS > 0 ? SLOTS : 1][8], const Operands& o, uint64_t i,
                            uint32_t count) {
#pragma unroll
  for (int n = 0; n < SLOTS; n++) {
    if (o.moment == F32) {
      store8_f32(from[n], o.slots[n], o.param.state + i, count);
    } else {
      uint16_t random[8];
      random8(random, Key{o.key.seed, o.key.step, o.key.tensor, 1u + n}, i);
      store8_stochastic(from[n], random, o.slots[n], o.param.state + i, count, o.moment);
    }
  }
}

// Eight elements from `i` on.
template <class Rule>
HS_DEVICE void update8(const Operands& o, const Scalars& s, uint64_t i, uint32_t count) {
  constexpr int SLOTS = Rule::SLOTS;
  float g[8] = {}, p[8], slots[SLOTS > 0 ? SLOTS : 1][8];
  if (Rule::READS_GRAD) load8(g, o.grad, i, count, o.grad_type);
  load8_master(p, o.param, i, count);
  load8_slots<SLOTS>(slots, o, i, count);
#pragma unroll
  for (int e = 0; e < 8; e++) {
    float slot[SLOTS > 0 ? SLOTS : 1];
#pragma unroll
    for (int n = 0; n < SLOTS; n++) slot[n] = slots[n][e];
    p[e] = Rule::apply(s, o.factor * g[e], p[e], slot);
#pragma unroll
    for (int n = 0; n < SLOTS; n++) slots[n][e] = slot[n];
  }
  if (Rule::STORES_SLOTS) store8_slots<SLOTS>(slots, o, i, count);
  store8_master(p, o.param, i, count, o.key);
}

template <class Rule>
HS_DEVICE void step(const Step& block) {
  const Status& status = *global<const Status>(block.status);
  if (status.skip != APPLIED) return;
  for (uint64_t item = block_index(); item < block.chunk_count * PIECES; item += block_count()) {
    const Step& p = reload(block);
    const Chunk* chunks = global<const Chunk>(p.chunks);        // [chunk_count]
    const Tensor* tensors = global<const Tensor>(p.tensors);    // [tensor_count]
    const Scalars* scalars = global<const Scalars>(p.scalars);  // [tensor_count]
    const Chunk chunk = chunks[item / PIECES];
    const uint32_t first = static_cast<uint32_t>(item % PIECES) * PIECE;
    if (first >= chunk.len) continue;
    const Scalars s = scalars[chunk.tensor];
    if (s.active == 0) continue;
    const Operands o = operands(p, status, tensors[chunk.tensor], chunk.tensor);
    const uint32_t end = chunk.len - first < PIECE ? chunk.len : first + PIECE;
    for (uint32_t i = first + 8 * thread_index(); i < end; i += STRIP) {
      update8<Rule>(o, s, chunk.start + i, end - i < 8 ? end - i : 8);
    }
  }
}

}  // namespace hs
