// Which tile of which product a block computes: members of a batch, or groups of rows or of steps of k,
// whose ends are in device memory. The same list for any number of blocks.
#pragma once
#include "gemm/activation.h"

namespace hs {

// `ROLE_*` and `FLAG_*` of src/kernel/params/gemm.rs.
constexpr uint32_t ROLE_FORWARD = 0;
constexpr uint32_t ROLE_DERIVATIVE = 1;
constexpr uint32_t ROLE_FUSED_A = 2;
constexpr uint32_t A_TRANSPOSED = 1;
constexpr uint32_t B_TRANSPOSED = 2;
constexpr uint32_t GATED = 4;
constexpr uint32_t FLUSH = 8;
constexpr uint32_t GROUPS_CUT_K = 16;
constexpr uint32_t ADD_A_SUMS = 32;
constexpr uint32_t D_TRANSPOSED = 64;
constexpr uint32_t ALIGNED = 128;
constexpr uint32_t ROTATED = 256;
constexpr uint32_t THROUGH_BF16 = 512;
constexpr uint32_t PAIRS = 1024;

// One tile of D, and the product it belongs to.
struct Tile {
  uint64_t member;  // of the batch, or the group
  uint64_t start;   // the group's first row (of A and D; or of A and B where groups cut k)
  uint64_t m, k;    // the member's own sizes; of k, the part
  uint32_t part;    // of k
  uint64_t first_k;
  uint64_t row, column;  // the tile's first, in the member's D
};

// Rows of tiles whose columns are gone through together: what they read of A and B stays in the second
// cache, 8 + 8 tiles' worth for 64 tiles.
constexpr uint32_t RASTER = 8;

HS_DEVICE uint32_t tiles_of(uint64_t len, uint32_t size) {
  return static_cast<uint32_t>((len + size - 1) / size);
}

// Which step of 32 of k a tile starts at; the last is followed by the first. Where rows of an operand lie a multiple
// of 4 KiB apart, the same steps of all rows are in the same channels of memory, and tiles that go through k together
// want all of it from them. So each 256 columns of D start 256 bytes of a row further, which is where the next channel
// begins, at most 32 of them. By columns of D, not by tiles or rows, so that an element has one order whatever the tile
// and however many rows there are.
HS_DEVICE uint32_t first_step(const Product& p, const Tile& t) {
  const uint32_t steps = tiles_of(t.k, 32);
  if ((p.flags & ROTATED) == 0 || steps < 8) return 0;
  const uint32_t places = steps / 4 < 32 ? steps / 4 : 32;
  return static_cast<uint32_t>(t.column / 256) % places * 4;
}

// Whether that is for operands which are stored so: where both are [k][lane], lanes are in different channels.
template <bool A_TRANSPOSED, bool B_TRANSPOSED>
constexpr bool TURNS = !A_TRANSPOSED || B_TRANSPOSED;

// Group `g`'s end: at most `rows`, and not before `start`.
HS_DEVICE uint64_t group_end(const Product& p, uint64_t g, uint64_t start, uint64_t rows) {
  uint64_t end = global<const uint32_t>(p.group_ends)[g];
  if (end > rows) end = rows;
  return end < start ? start : end;
}

// Finds tile `t` of `height` × `width`; false behind the last.
HS_DEVICE bool locate(const Product& p, uint32_t t, uint32_t height, uint32_t width, Tile& tile) {
  const uint32_t across = tiles_of(p.n, width);
  const bool split = p.workspace != 0;
  tile.part = split ? t % p.splits : 0;
  if (split) t /= p.splits;
  tile.first_k = 0;
  tile.member = 0;
  tile.start = 0;
  tile.m = p.m;
  tile.k = p.k;
  if (p.groups > 0 && (p.flags & GROUPS_CUT_K) == 0) {
    for (;; tile.member++) {
      if (tile.member == p.groups) return false;
      const uint64_t end = group_end(p, tile.member, tile.start, p.m);
      tile.m = end - tile.start;
      const uint32_t here = tiles_of(tile.m, height) * across;
      if (t < here) break;
      t -= here;
      tile.start = end;
    }
  } else {
    const uint32_t each = tiles_of(p.m, height) * across;
    tile.member = t / each;
    t %= each;
    if (tile.member >= (p.groups > 0 ? p.groups : p.batch)) return false;
    if (p.groups > 0) {
      for (uint64_t g = 0; g <= tile.member; g++) {
        const uint64_t end = group_end(p, g, tile.start, p.k);
        tile.k = end - tile.start;
        if (g < tile.member) tile.start = end;
      }
    }
  }
  const uint32_t down = tiles_of(tile.m, height);
  const uint32_t band = t / (RASTER * across);
  const uint32_t left = down - band * RASTER;
  const uint32_t rows = left < RASTER ? left : RASTER;
  t -= band * RASTER * across;
  tile.row = static_cast<uint64_t>(band * RASTER + t % rows) * height;
  tile.column = static_cast<uint64_t>(t / rows) * width;
  if (split) {  // parts are whole steps of 32, as many each as can be
    const uint64_t steps = tiles_of(p.k, 32), first = steps * tile.part / p.splits;
    const uint64_t end = 32 * (steps * (tile.part + 1) / p.splits);
    tile.first_k = 32 * first;
    tile.k = (end < p.k ? end : p.k) - tile.first_k;
  }
  return true;
}

// Where the member's matrices start, in bytes; A and B at the part's first step of k. A and what is stored like it:
HS_DEVICE uint64_t like_a(const Product& p, const Tile& t, uint64_t base, uint64_t ld, uint64_t stride) {
  const uint64_t along_k = (p.flags & A_TRANSPOSED) != 0 ? ld : 1;
  return base + (t.member * stride + t.start * ld + t.first_k * along_k) * element_bytes(p.input);
}
HS_DEVICE uint64_t start_of_b(const Product& p, const Tile& t) {
  const uint64_t start = (p.flags & GROUPS_CUT_K) != 0 ? t.start * p.ldb : 0;
  const uint64_t along_k = (p.flags & B_TRANSPOSED) != 0 ? 1 : p.ldb;
  return p.b + (t.member * p.stride_b + start + t.first_k * along_k) * element_bytes(p.input);
}
// D and what is stored like it:
HS_DEVICE uint64_t like_d(const Product& p, const Tile& t, uint64_t base, uint64_t ld, uint64_t stride,
                          uint32_t type) {
  const uint64_t start = (p.flags & GROUPS_CUT_K) != 0 ? 0 : t.start * ld;
  return base + (t.member * stride + start) * element_bytes(type);
}

}  // namespace hs
