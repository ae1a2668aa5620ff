// The f32 value that a step adds to, wherever it is kept: `MASTER_*` of src/kernel/params/optim.rs.
#pragma once
#include "optim/random.h"
#include "optim/round.h"

namespace hs {

constexpr uint32_t MASTER_OWN = 0;         // parameters are f32 themselves
constexpr uint32_t MASTER_F32 = 1;         // an f32 copy; parameters are rounded from it
constexpr uint32_t MASTER_REMAINDER = 2;   // bf16 parameters and 16-bit remainders
constexpr uint32_t MASTER_STOCHASTIC = 3;  // none; parameters are rounded stochastically
constexpr uint32_t MASTER_NEAREST = 4;     // none; parameters are rounded to nearest

// One tensor's parameter and master.
struct Param {
  uint64_t address;  // the parameter
  uint64_t master;   // the master array of all tensors
  uint64_t state;    // the tensor's first element in it
  uint32_t type;
  uint32_t mode;
};

HS_DEVICE void load8_remainder(float (&to)[8], const Param& p, uint64_t i, uint32_t count) {
  uint16_t upper[8], lower[8];
  load8_words(upper, p.address, i, count);
  load8_words(lower, p.master, p.state + i, count);
#pragma unroll
  for (int e = 0; e < 8; e++) to[e] = join(upper[e], lower[e]);
}

HS_DEVICE void store8_remainder(const float (&from)[8], const Param& p, uint64_t i, uint32_t count) {
  uint16_t upper[8], lower[8];
#pragma unroll
  for (int e = 0; e < 8; e++) split(from[e], upper[e], lower[e]);
  store8_words(upper, p.address, i, count);
  store8_words(lower, p.master, p.state + i, count);
}

HS_DEVICE void load8_master(float (&to)[8], const Param& p, uint64_t i, uint32_t count) {
  switch (p.mode) {
    case MASTER_F32: return load8_f32(to, p.master, p.state + i, count);
    case MASTER_REMAINDER: return load8_remainder(to, p, i, count);
    default: return load8(to, p.address, i, count, p.type);
  }
}

HS_DEVICE void store8_master(float (&from)[8], const Param& p, uint64_t i, uint32_t count,
                             const Key& key) {
  switch (p.mode) {
    case MASTER_REMAINDER: return store8_remainder(from, p, i, count);
    case MASTER_STOCHASTIC: {
      uint16_t random[8];
      random8(random, key, i);
      return store8_stochastic(from, random, p.address, i, count, p.type);
    }
    case MASTER_F32: store8_f32(from, p.master, p.state + i, count); [[fallthrough]];
    default: return store8(from, p.address, i, count, p.type);
  }
}

}  // namespace hs
