// y[r, :] = (x[r, :] - max) / sum of (x - max)^2, a block of 128 threads a row. Without any header, so
// that compilers which have none for GPUs compile it, too.
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#ifdef __AMDGCN__
#define THREAD __builtin_amdgcn_workitem_id_x()
#define BLOCK __builtin_amdgcn_workgroup_id_x()
#define BARRIER()                                                                              \
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"), __builtin_amdgcn_s_barrier(),         \
      __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup")
#else
#define THREAD __nvvm_read_ptx_sreg_tid_x()
#define BLOCK __nvvm_read_ptx_sreg_ctaid_x()
#define BARRIER() __syncthreads()
#endif
extern "C" __global__ void rows(const float* x, float* y, int columns) {
  __shared__ float part[128];
  const int t = THREAD, row = BLOCK;
  float best = -__builtin_huge_valf();
  for (int i = t; i < columns; i += 128) best = __builtin_fmaxf(best, x[row * columns + i]);
  part[t] = best;
  BARRIER();
  for (int half = 64; half > 0; half /= 2) {
    if (t < half) part[t] = __builtin_fmaxf(part[t], part[t + half]);
    BARRIER();
  }
  best = part[0];
  BARRIER();
  float sum = 0;
  for (int i = t; i < columns; i += 128) {
    const float d = x[row * columns + i] - best;
    sum += d * d;
  }
  part[t] = sum;
  BARRIER();
  for (int half = 64; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    BARRIER();
  }
  for (int i = t; i < columns; i += 128) y[row * columns + i] = (x[row * columns + i] - best) / part[0];
}
