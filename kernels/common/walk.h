// How blocks of 256 threads go over a tensor: eight elements a thread, 2,048 a block, block after
// block with the grid's stride. `body(i, count)` gets the first element and how many are there.
#pragma once
#include "target.h"

namespace hs {

constexpr uint32_t THREADS = 256;
constexpr uint64_t CHUNK = 16384;  // elements that one Partial covers, at most
constexpr uint64_t STRIP = 8 * THREADS;  // elements that a block covers at once

// Threads of a block that have elements when it walks over `len` from its start.
HS_DEVICE uint32_t threads_of(uint64_t len) {
  return len < STRIP ? static_cast<uint32_t>((len + 7) / 8) : THREADS;
}

template <class Body>
HS_DEVICE void walk(uint64_t len, Body body) {
  for (uint64_t strip = block_index() * STRIP; strip < len; strip += block_count() * STRIP) {
    const uint64_t i = strip + 8 * thread_index();
    if (i < len) body(i, len - i < 8 ? static_cast<uint32_t>(len - i) : 8u);
  }
}

}  // namespace hs
