// What is rare in the crate's kernels and common in others': calls, local memory, constants, module
// variables, divergence, votes, matches, atomics of several types.
#include <stdint.h>

__constant__ float table[4] = {1.5f, 2.5f, 3.5f, 4.5f};
__device__ int counter = 7;

__device__ __noinline__ float power_sum(float x, int n) {
  float s = 0, p = 1;
  for (int i = 0; i < n; i++) {
    s += p;
    p *= x;
  }
  return s;
}
struct Pair { float a, b; };
__device__ __noinline__ Pair swap(Pair p) { return {p.b, p.a}; }

// out[t] = Σ_{i<t%5} 2^i + table[t%4] + local[t%8], local being a permutation of x
extern "C" __global__ void calls(const float* x, float* out, int n) {
  const int t = threadIdx.x;
  float local[8];
  for (int i = 0; i < 8; i++) local[i * 3 % 8] = x[i];
  float y = power_sum(2.0f, t % 5) + table[t % 4] + local[(t + n) % 8];
  const Pair p = swap({y, x[0]});
  atomicAdd(&counter, 1);
  if (t % 3 == 0) {
    for (int i = 0; i < t; i++) y += 1.0f;
  } else if (t % 3 == 1) {
    y -= 1.0f;
  }
  out[t] = y + p.a - x[0];
}

// Votes, shuffles, matches and reductions over one warp.
extern "C" __global__ void votes(uint32_t* out) {
  const int t = threadIdx.x;
  uint32_t y[8];
  y[0] = __ballot_sync(~0u, t % 3 == 0);
  y[1] = __any_sync(~0u, t == 40) * 2 + __all_sync(~0u, t < 32);
  y[2] = __shfl_down_sync(~0u, t, 4);
  y[3] = __shfl_xor_sync(~0u, t * t, 5, 8);
  y[4] = __shfl_up_sync(~0u, t, 3, 16);
  y[5] = __match_any_sync(~0u, t % 4);
  y[6] = __reduce_add_sync(~0u, t) + __reduce_max_sync(~0u, t ^ 9);
  y[7] = __shfl_sync(~0u, t, 7, 16);
  for (int i = 0; i < 8; i++) out[8 * t + i] = y[i];
}

extern "C" __global__ void atomics(uint32_t* u, float* f, double* d, unsigned long long* l) {
  const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&u[0], t);
  atomicMax(&u[1], t * 7 % 64);
  atomicMin(&u[2], t + 3);
  atomicXor(&u[3], 1u << t % 32);
  atomicInc(&u[4], 9);
  atomicAdd(f, 0.5f);
  atomicAdd(d, 0.25);
  unsigned long long seen = 0;
  for (;;) {  // a maximum by compare and swap
    const unsigned long long old = atomicCAS(l, seen, t > seen ? t : seen);
    if (old == seen) break;
    seen = old;
  }
}
