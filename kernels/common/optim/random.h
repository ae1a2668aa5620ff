// Random bits for stochastic rounding: 16 for each of eight elements, from one Philox4x32-10 block
// (Salmon, Moraes, Dror, Shaw, SC11). Which number it is never depends on where it is computed: the
// counter is (element / 8, slot, tensor, step), the key is the seed (src/optim/random.rs).
#pragma once
#include "target.h"

namespace hs {

struct Key {
  uint64_t seed;
  uint64_t step;
  uint32_t tensor;
  uint32_t slot;  // 0 for the parameter, 1 + number for a state array
};

// The bits of elements `first … first + 7`; `first` is a multiple of 8.
HS_DEVICE void random8(uint16_t (&to)[8], const Key& key, uint64_t first) {
  const uint64_t block = first / 8;
  uint32_t c0 = static_cast<uint32_t>(block);
  uint32_t c1 = static_cast<uint32_t>(block >> 32) | key.slot << 29;
  uint32_t c2 = key.tensor;
  uint32_t c3 = static_cast<uint32_t>(key.step);
  uint32_t k0 = static_cast<uint32_t>(key.seed);
  uint32_t k1 = static_cast<uint32_t>(key.seed >> 32) ^ static_cast<uint32_t>(key.step >> 32);
#pragma unroll 5  // not all ten: twenty keys would stay in registers
  for (int round = 0; round < 10; round++) {
    const uint64_t a = static_cast<uint64_t>(c0) * 0xd2511f53u;
    const uint64_t b = static_cast<uint64_t>(c2) * 0xcd9e8d57u;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(a);
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  const uint32_t words[4] = {c0, c1, c2, c3};
#pragma unroll
  for (int w = 0; w < 4; w++) {
    to[2 * w] = static_cast<uint16_t>(words[w]);
    to[2 * w + 1] = static_cast<uint16_t>(words[w] >> 16);
  }
}

}  // namespace hs
