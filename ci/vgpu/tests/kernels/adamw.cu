// One AdamW step: bf16 gradients, f32 moments and master, bf16 parameters out.
#include <stdint.h>
struct Step {
  uint64_t gradient, first, second, master, parameter, len;
  float lr, beta1, beta2, eps, decay, correction1, correction2, scale;
};
extern "C" __global__ void __launch_bounds__(256) adamw(const __grid_constant__ Step p) {
  for (uint64_t i = blockIdx.x * 256ull + threadIdx.x; i < p.len; i += gridDim.x * 256ull) {
    const uint16_t bits = reinterpret_cast<const uint16_t*>(p.gradient)[i];
    const float g = p.scale * __uint_as_float(static_cast<uint32_t>(bits) << 16);
    float* m = reinterpret_cast<float*>(p.first) + i;
    float* v = reinterpret_cast<float*>(p.second) + i;
    float* w = reinterpret_cast<float*>(p.master) + i;
    *m = fmaf(p.beta1, *m, (1.0f - p.beta1) * g);
    *v = fmaf(p.beta2, *v, (1.0f - p.beta2) * (g * g));
    const float update = (*m * p.correction1) / (sqrtf(*v * p.correction2) + p.eps) + p.decay * *w;
    *w = *w - p.lr * update;
    const uint32_t b = __float_as_uint(*w);
    reinterpret_cast<uint16_t*>(p.parameter)[i] = static_cast<uint16_t>((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
  }
}
