// The sum of squares of one chunk, to the documented bit: lane l of 2,048 adds elements l, l + 2048,
// … in this order; lanes fold by halves, s[l] += s[l + h] for h = 1024 … 1.
//
// Thread t owns lanes 8t … 8t + 7, so that it adds what it has just loaded. Halves above 4 lanes are
// other threads': through shared memory. The last three are the thread's own.
#pragma once
#include "walk.h"

namespace hs {

constexpr uint32_t FOLD_DOUBLES = 8 * (THREADS / 2);  // of shared memory: 8 KiB

// Returns the sum to thread 0. `shared` has FOLD_DOUBLES. Only the first `threads` threads may have
// lanes that are not 0: additions of 0 are left out, which makes tensors of a few elements cheap.
//
// Where other threads have lanes, all threads meet: thread 0 then sees what they wrote before, and `shared` is
// free again. Where there are none, nothing is shared and nobody meets.
HS_DEVICE double fold(double (&lane)[8], double* shared, uint32_t threads) {
  const uint32_t t = thread_index();
#pragma unroll 1
  for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
    if (half >= threads) continue;
    if (t >= half && t < 2 * half) {
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) shared[e * (THREADS / 2) + t - half] = lane[e];
    }
    barrier();
    if (t < half) {
#pragma unroll
      for (uint32_t e = 0; e < 8; e++) lane[e] += shared[e * (THREADS / 2) + t];
    }
    barrier();
  }
#pragma unroll
  for (int half = 4; half > 0; half /= 2) {
    for (int e = 0; e < half; e++) lane[e] += lane[e + half];
  }
  return lane[0];
}

}  // namespace hs
