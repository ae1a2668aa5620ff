// swiglu_grad: d_gate = (dy·up)·act'(gate), d_up = dy·act(gate), with z = [gate | up] and dz = [d_gate | d_up].
//
// `=`. Each element on its own: the CPU's bits. Limiter: memory, 10 bytes an element of dy in 16 bits:
// 8,192 × 8,192 are 671 MB, 0.48 ms at 90 % of an A100-40's 1,555 GB/s, 0.51 ms at 80 % of an MI250X GCD's 1,638.
#pragma once
#include "gemm/activation.h"
#include "walk.h"

namespace hs {

HS_DEVICE void swiglu_grad(const SwigluGrad& p) {
  const uint64_t eights = (p.n + 7) / 8;  // of a row
  const bool flush = (p.flags & 8) != 0;
#pragma unroll 1
  for (uint64_t q = block_index() * THREADS + thread_index(); q < p.rows * eights;
       q += static_cast<uint64_t>(block_count()) * THREADS) {
    const uint64_t row = q / eights, j = q % eights * 8;
    const uint32_t count = p.n - j < 8 ? static_cast<uint32_t>(p.n - j) : 8u;
    float dy[8], gate[8], up[8], slope[8];
    load8(dy, p.dy, row * p.ldy + j, count, p.input);
    load8(gate, p.z, row * p.ldz + j, count, p.input);
    load8(up, p.z, row * p.ldz + p.n + j, count, p.input);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      slope[e] = gate[e];
      up[e] = dy[e] * up[e];
    }
    derive8(slope, p.activation);
    apply8(gate, p.activation);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      up[e] *= slope[e];
      gate[e] *= dy[e];
    }
    store8_result(up, p.dz, row * p.ldd + j, count, p.input, flush);
    store8_result(gate, p.dz, row * p.ldd + p.n + j, count, p.input, flush);
  }
}

}  // namespace hs
