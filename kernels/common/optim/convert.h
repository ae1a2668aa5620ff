// convert: masters from parameters (load) or from f32 values (store), f32 values from masters
// (export), parameters from masters (round): `CONVERT_*` of src/kernel/params/optim.rs.
//
// `=`. Deterministic. Limiter: memory; load of an f32 master from bf16 is 6 bytes an element.
#pragma once
#include "optim/master.h"
#include "optim/step.h"

namespace hs {

constexpr uint32_t CONVERT_LOAD = 0;
constexpr uint32_t CONVERT_STORE = 1;
constexpr uint32_t CONVERT_EXPORT = 2;
constexpr uint32_t CONVERT_ROUND = 3;

HS_DEVICE void convert8(const Convert& p, const Param& param, uint64_t values, uint64_t i,
                        uint32_t count) {
  float x[8];
  if (p.direction == CONVERT_LOAD && p.mode == MASTER_F32) {
    load8(x, param.address, i, count, param.type);
    store8_f32(x, param.master, param.state + i, count);
  } else if (p.direction == CONVERT_LOAD && p.mode == MASTER_REMAINDER) {
    const uint16_t zeros[8] = {};
    store8_words(zeros, param.master, param.state + i, count);
  } else if (p.direction == CONVERT_EXPORT) {
    load8_master(x, param, i, count);
    store8_f32(x, values, i, count);
  } else if (p.direction == CONVERT_STORE) {
    load8_f32(x, values, i, count);
    if (p.mode == MASTER_REMAINDER) {
      store8_remainder(x, param, i, count);
    } else {
      if (p.mode == MASTER_F32) store8_f32(x, param.master, param.state + i, count);
      store8(x, param.address, i, count, param.type);
    }
  } else if (p.direction == CONVERT_ROUND && p.mode == MASTER_F32) {
    load8_f32(x, param.master, param.state + i, count);
    store8(x, param.address, i, count, param.type);
  }
}

HS_DEVICE void convert(const Convert& p) {
  const Chunk* chunks = global<const Chunk>(p.chunks);
  const Tensor* tensors = global<const Tensor>(p.tensors);
  const uint64_t* params = global<const uint64_t>(p.params);  // [tensor_count]
  const uint64_t* values = global<const uint64_t>(p.values);  // [tensor_count]
  for (uint64_t item = block_index(); item < p.chunk_count * PIECES; item += block_count()) {
    const Chunk chunk = chunks[p.first_chunk + item / PIECES];
    const uint32_t first = static_cast<uint32_t>(item % PIECES) * PIECE;
    if (first >= chunk.len) continue;
    const Param param = {params[chunk.tensor], p.master, tensors[chunk.tensor].state, p.param, p.mode};
    const uint32_t end = chunk.len - first < PIECE ? chunk.len : first + PIECE;
    for (uint32_t i = first + 8 * thread_index(); i < end; i += STRIP) {
      convert8(p, param, values[chunk.tensor], chunk.start + i, end - i < 8 ? end - i : 8);
    }
  }
}

}  // namespace hs
