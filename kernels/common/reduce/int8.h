// Blocks of 256 elements, each 256 i8 and then the f32 that they are multiplied by: 260 bytes. Beside the
// storage types, which kernels keep single elements in, a type of what travels.
#pragma once
#include "storage.h"

namespace hs {

constexpr uint32_t INT8 = 3;            // after the numbers of halfstep::Dtype
constexpr uint64_t INT8_BLOCK = 256;    // elements of a scale
constexpr uint64_t INT8_BYTES = INT8_BLOCK + 4;

// Where the block of an element is: one of 2^32 at most.
HS_DEVICE uint64_t int8_block(uint64_t base, uint64_t i) {
  return base + static_cast<uint32_t>(i / INT8_BLOCK) * INT8_BYTES;
}

HS_DEVICE float int8_value(uint32_t code, float scale) {
  return scale * static_cast<float>(static_cast<int8_t>(code));
}

HS_DEVICE float load1_int8(uint64_t base, uint64_t i) {
  const uint64_t block = int8_block(base, i);
  const uint8_t code = *global<const uint8_t>(block + i % INT8_BLOCK);
  return int8_value(code, from_bits(load4(block + INT8_BLOCK)));
}

// Eight elements at a multiple of eight, which are of one block, and at a multiple of 4 bytes.
HS_DEVICE void load8_int8(float (&to)[8], uint64_t base, uint64_t i) {
  const uint64_t block = int8_block(base, i);
  const float scale = from_bits(load4(block + INT8_BLOCK));
  const uint32_t words[2] = {load4(block + i % INT8_BLOCK), load4(block + i % INT8_BLOCK + 4)};
#pragma unroll
  for (int e = 0; e < 8; e++) to[e] = int8_value(words[e / 4] >> (8 * (e % 4)), scale);
}

// `load8` and `load1` of what travels; of blocks only whole eights at multiples of eight.
HS_DEVICE void load8_wire(float (&to)[8], uint64_t base, uint64_t i, uint32_t count, uint32_t wire) {
  if (wire == INT8) return load8_int8(to, base, i);
  load8(to, base, i, count, wire);
}

HS_DEVICE float load1_wire(uint64_t base, uint64_t i, uint32_t wire) {
  return wire == INT8 ? load1_int8(base, i) : load1(base, i, wire);
}

}  // namespace hs
