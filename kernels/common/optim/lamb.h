// LAMB's first two rows.
//
// lamb_moments: new m and v; norms[c] = (Σ p², Σ u²) over chunk c, squares exact and sums in f64 in
//   the order of fold.h. p is the old parameter, u the direction that the *stored* moments give.
//   Each block takes whole chunks. Limiter: memory, 22 bytes an element with bf16 gradients.
// lamb_trust: a = lr·‖p‖/‖u‖ of every tensor, chunks added in order; one block, a thread a tensor.
//   Limiter: latency, 16 bytes a chunk.
#pragma once
#include "fold.h"
#include "optim/rules/lamb.h"
#include "optim/step.h"

namespace hs {

HS_DEVICE void lamb_moments(const Step& block) {
  HS_SHARED double shared[FOLD_DOUBLES];
  const Status& status = *global<const Status>(block.status);
  if (status.skip != APPLIED) return;
  for (uint64_t c = block_index(); c < block.chunk_count; c += block_count()) {
    const Step& p = reload(block);
    const Chunk* chunks = global<const Chunk>(p.chunks);        // [chunk_count]
    const Tensor* tensors = global<const Tensor>(p.tensors);    // [tensor_count]
    const Scalars* scalars = global<const Scalars>(p.scalars);  // [tensor_count]
    const Chunk chunk = chunks[c];
    const Scalars s = scalars[chunk.tensor];
    if (s.active == 0) continue;
    const Operands o = operands(p, status, tensors[chunk.tensor], chunk.tensor);
    double of_p[8] = {}, of_u[8] = {};
    for (uint32_t at = 8 * thread_index(); at < chunk.len; at += STRIP) {
      const uint64_t i = chunk.start + at;
      const uint32_t count = chunk.len - at < 8 ? chunk.len - at : 8;
      float g[8], w[8], slots[2][8];
      load8(g, o.grad, i, count, o.grad_type);
      load8_master(w, o.param, i, count);
      load8_slots<2>(slots, o, i, count);
#pragma unroll
      for (int e = 0; e < 8; e++) moments(s, o.factor * g[e], slots[0][e], slots[1][e]);
      store8_slots<2>(slots, o, i, count);
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) {
        const double wide_p = e < count ? static_cast<double>(w[e]) : 0.0;
        const float u = Lamb::direction(s, w[e], slots[0][e], slots[1][e]);
        const double wide_u = e < count ? static_cast<double>(u) : 0.0;
        of_p[e] += wide_p * wide_p;  // exact: 24 bits squared
        of_u[e] += wide_u * wide_u;
      }
    }
    const double sum_p = fold(of_p, shared, threads_of(chunk.len));
    const double sum_u = fold(of_u, shared, threads_of(chunk.len));
    if (thread_index() == 0) {
      double* norms = global<double>(reload(block).norms);  // [chunk_count][2]
      norms[2 * c] = sum_p;
      norms[2 * c + 1] = sum_u;
    }
  }
}

HS_DEVICE void lamb_trust(const Step& p) {
  if (global<const Status>(p.status)->skip != APPLIED) return;
  const Tensor* tensors = global<const Tensor>(p.tensors);  // [tensor_count]
  Scalars* scalars = global<Scalars>(p.scalars);            // [tensor_count]
  const double* norms = global<const double>(p.norms);      // [chunk_count][2]
  for (uint64_t row = thread_index(); row < p.tensor_count; row += THREADS) {
    if (scalars[row].active == 0) continue;
    const uint64_t first = tensors[row].first_chunk;
    double of_p = 0.0, of_u = 0.0;
    for (uint64_t c = first; c < first + tensors[row].chunks; c++) {
      of_p += norms[2 * c];
      of_u += norms[2 * c + 1];
    }
    // A ratio that says nothing (a norm of 0, of infinity, of NaN) is 1.
    const double ratio = square_root(of_p / of_u);
    const bool says = of_p > 0.0 && of_u > 0.0 && ratio > 0.0 && ratio < INFINITE;
    scalars[row].a = static_cast<float>(static_cast<double>(scalars[row].a) * (says ? ratio : 1.0));
  }
}

}  // namespace hs
