// What is rare in the crate's kernels and common in others': calls, private memory, constants, module
// variables, divergence, votes, shuffles, atomics of several types, generic pointers, division.
#include <hip/hip_runtime.h>
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

// out[t] = Σ_{i<t%5} 2^i + table[t%4] + local[t%8], local being a permutation of x
extern "C" __global__ void calls(const float* x, float* out, int n) {
  const int t = threadIdx.x;
  volatile float local[8];
  for (int i = 0; i < 8; i++) local[i * 3 % 8] = x[i];
  float y = power_sum(2.0f, t % 5) + table[t % 4] + local[(t + n) % 8];
  atomicAdd(&counter, 1);
  if (t % 3 == 0) {
    for (int i = 0; i < t; i++) y += 1.0f;
  } else if (t % 3 == 1) {
    y -= 1.0f;
  }
  out[t] = y;
}

// Votes and shuffles of one wave.
extern "C" __global__ void votes(uint32_t* out) {
  const int t = threadIdx.x;
  uint32_t y[8];
  const uint64_t mask = __ballot(t % 3 == 0);
  y[0] = static_cast<uint32_t>(mask >> 32);
  y[1] = __any(t == 70) * 2 + __all(t < 64);
  y[2] = __shfl_down(t, 4);
  y[3] = __shfl_xor(t * t, 5, 8);
  y[4] = __shfl_up(t, 3, 16);
  y[5] = __popcll(mask & ((1ull << t) - 1));
  y[6] = __builtin_amdgcn_ds_swizzle(t, 0x041f);       // xor 1
  y[7] = __builtin_amdgcn_update_dpp(0, t, 0x111, 15, 15, true);  // row_shr:1
  for (int i = 0; i < 8; i++) out[8 * t + i] = y[i];
}

extern "C" __global__ void atomics(uint32_t* u, float* f, double* d, unsigned long long* l) {
  const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&u[0], t);
  atomicMax(&u[1], t * 7 % 64);
  atomicMin(&u[2], t + 3);
  atomicXor(&u[3], 1u << t % 32);
  __builtin_amdgcn_atomic_inc32(&u[4], 9u, __ATOMIC_RELAXED, "agent");
  unsafeAtomicAdd(f, 0.5f);
  unsafeAtomicAdd(d, 0.25);
  unsigned long long seen = 0;
  for (;;) {  // a maximum by compare and swap
    const unsigned long long old = atomicCAS(l, seen, t > seen ? t : seen);
    if (old == seen) break;
    seen = old;
  }
}

// Generic pointers: to LDS for odd threads, to global memory for even ones.
extern "C" __global__ void generic(float* x) {
  __shared__ float s[64];
  extern __shared__ float more[];
  const int t = threadIdx.x;
  s[t] = t;
  more[t] = 2 * t;
  __syncthreads();
  volatile float* p = t % 2 ? (t % 4 == 1 ? &s[t ^ 1] : &more[t ^ 1]) : &x[t];
  const float y = *p;
  x[64 + t] = y + gridDim.x * 1000.0f + blockDim.x * 10000.0f;
}

// Quotients, roots and conversions, as libraries make them from the approximate instructions.
extern "C" __global__ void numbers(const float* a, const float* b, float* out, double* wide, int n) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= n) return;
  const float x = a[t], y = b[t];
  out[5 * t] = x / y;
  out[5 * t + 1] = sqrtf(fabsf(x));
  out[5 * t + 2] = fmaf(x, y, x);
  out[5 * t + 3] = static_cast<float>(static_cast<_Float16>(x));
  out[5 * t + 4] = static_cast<float>(static_cast<long long>(x));
  wide[2 * t] = static_cast<double>(x) / static_cast<double>(y);
  wide[2 * t + 1] = sqrt(fabs(static_cast<double>(x)));
}
