/* The library's own all-reduce, as programs call it: sums in place, of f32 with its own operator and of
 * bf16 with one of ours. Compiled by the MPICC that the bench was built with, and loaded by it. */
#include <mpi.h>
#include <stdint.h>
#include <string.h>

static MPI_Op bf16_sum = MPI_OP_NULL;

static float widen(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static void add_bf16(void *from, void *to, int *len, MPI_Datatype *type) {
  const uint16_t *a = from;
  uint16_t *b = to;
  int i;
  (void)type;
  for (i = 0; i < *len; i++) {
    float sum = widen(a[i]) + widen(b[i]);
    uint32_t bits;
    memcpy(&bits, &sum, 4);
    b[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

/* Sums `len` elements over all processes. `half`: bf16, or else f32. Returns MPI's code. */
int bench_all_reduce(void *values, long len, int half) {
  int code;
  if (!half) return MPI_Allreduce(MPI_IN_PLACE, values, (int)len, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  if (bf16_sum == MPI_OP_NULL) {
    code = MPI_Op_create(add_bf16, 1, &bf16_sum);
    if (code != MPI_SUCCESS) return code;
  }
  return MPI_Allreduce(MPI_IN_PLACE, values, (int)len, MPI_UINT16_T, bf16_sum, MPI_COMM_WORLD);
}
