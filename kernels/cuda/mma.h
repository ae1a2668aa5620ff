// 16-bit tiles in shared memory, their fragments, and the matrix unit's steps, for sm_80 and newer.
//
// With g = lane / 4 and t = lane % 4, mma.m16n8k16 wants of A rows g and g + 8, columns 2t, 2t + 1 and 2t + 8,
// 2t + 9; of B the same columns' rows at n = g; and gives sums (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
// ldmatrix gives exactly that from eight 16-byte rows a matrix; `.trans` from the transpose.
#pragma once
#include "gemm/epilogue.h"

namespace hs {

HS_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

HS_DEVICE void ldmatrix(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
HS_DEVICE void ldmatrix_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// c += a·b: 16×8, 16 steps of k.
template <uint32_t TYPE>
HS_DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (TYPE == BF16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// Byte offset of a chunk (eight steps of k, 16 bytes) of a tile of 32 steps, stored [lane][k]: two lanes to a
// line of 128 bytes, chunks exchanged so that eight lanes' same chunks are on all 32 banks.
HS_DEVICE uint32_t offset_together(uint32_t lane, uint32_t chunk) {
  return (lane >> 1) * 128 + ((((lane & 1) << 2) | (chunk ^ ((lane >> 1) & 3))) << 4);
}
// The same for eight lanes of one step of a tile stored [k][lane].
template <uint32_t LANES>
HS_DEVICE uint32_t offset_across(uint32_t k, uint32_t chunk) {
  return k * (2 * LANES) + ((chunk ^ (k & 7)) << 4);
}

// Where a wave's fragments are in a tile in shared memory, whatever the step: 16 lanes of A or B and 16 steps of k
// each. How chunks are exchanged is the same for every sixteenth lane, so what is left to a step is one addition an
// offset.
template <bool OF_A, bool TOGETHER, uint32_t LANES, uint32_t OWN>
struct Fragments {
  uint32_t at[TOGETHER ? 2 : OWN / 16];  // of each 16 steps, or of each 16 of the wave's own lanes

  // From lane `first` on, a multiple of 64 or, of tiles stored [lane][k], of 16.
  HS_DEVICE void start(uint32_t first) {
    const uint32_t l = thread_index() % 32;
    // Which of the four matrices of 8×8 is the next along the lanes, and which along k.
    const uint32_t lanes = OF_A ? l / 8 % 2 : l / 16, steps = OF_A ? l / 16 : l / 8 % 2;
#pragma unroll
    for (uint32_t i = 0; i < sizeof(at) / 4; i++) {
      at[i] = TOGETHER ? offset_together(first + l % 8 + 8 * lanes, 2 * i + steps)
                       : offset_across<LANES>(l % 8 + 8 * steps, (first + 16 * i) / 8 + lanes);
    }
  }

  // Lanes 16·`i` …, steps 16·`group` ….
  HS_DEVICE void read(uint32_t (&r)[4], uint32_t tile, uint32_t i, uint32_t group) const {
    if (TOGETHER) ldmatrix(r, tile + at[group] + i * (16 * 64));
    else ldmatrix_transposed(r, tile + at[i] + group * (16 * 2 * LANES));
  }
};

// The sums of a TM×TN tile: two waves down and two across; or, where the tile has 256, four, of 64×64 each.
template <uint32_t TYPE, uint32_t TM, uint32_t TN>
struct MatrixSums {
  static constexpr uint32_t BANDS = TM == 256 ? 4 : 2, PILES = TN == 256 ? 4 : 2;  // waves down and across
  static constexpr uint32_t THREADS = BANDS * PILES * WAVE;
  static constexpr uint32_t OPERAND_BYTES = TM * 64;
  static constexpr uint32_t OWN_ROWS = TM / BANDS, OWN_COLUMNS = TN / PILES;   // of a wave
  static constexpr uint32_t DOWN = OWN_ROWS / 16, ACROSS = OWN_COLUMNS / 8;  // 16×8 products of it
  float sum[DOWN][ACROSS][4];

  HS_DEVICE static uint32_t first_row() { return thread_index() / 32 % BANDS * OWN_ROWS; }
  HS_DEVICE static uint32_t first_column() { return thread_index() / (32 * BANDS) * OWN_COLUMNS; }

  HS_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < DOWN; i++) {
#pragma unroll
      for (int j = 0; j < ACROSS; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) sum[i][j][e] = 0.0f;
      }
    }
  }

  HS_DEVICE static void store(char* to, uint32_t chunk, uint32_t lane, const uint16_t (&x)[8]) {
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; w++) words[w] = x[2 * w] | static_cast<uint32_t>(x[2 * w + 1]) << 16;
    *reinterpret_cast<uint4*>(to + offset_together(lane, chunk)) =
        uint4{words[0], words[1], words[2], words[3]};
  }

  // One step of 32 of operands that are stored [lane][k] both.
  HS_DEVICE void multiply(const char* a, const char* b) {
    Fragments<true, true, TM, OWN_ROWS> of_a;
    Fragments<false, true, TN, OWN_COLUMNS> of_b;
    of_a.start(first_row());
    of_b.start(first_column());
    multiply_at(of_a, of_b, shared_address(a), shared_address(b));
  }

  template <class OfA, class OfB>
  HS_DEVICE void multiply_at(const OfA& of_a, const OfB& of_b, uint32_t a, uint32_t b) {
#pragma unroll
    for (uint32_t group = 0; group < 2; group++) {
      uint32_t fa[DOWN][4], fb[ACROSS / 2][4];
#pragma unroll
      for (uint32_t i = 0; i < DOWN; i++) of_a.read(fa[i], a, i, group);
#pragma unroll
      for (uint32_t j = 0; j < ACROSS / 2; j++) of_b.read(fb[j], b, j, group);
#pragma unroll
      for (uint32_t i = 0; i < DOWN; i++) {
#pragma unroll
        for (uint32_t n = 0; n < ACROSS; n++) {
          // Back and forth: neighbours share a fragment, which stays in the unit's operand cache.
          const uint32_t j = i % 2 == 0 ? n : ACROSS - 1 - n;
          // Registers 0 and 1 of B are the first eight columns, 2 and 3 the others.
          mma<TYPE>(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  HS_DEVICE void slab(uint32_t pass, float* slab) const {
    const uint32_t l = thread_index() % 32, r = first_row() / OWN_ROWS * 16 + l / 4;
    float* to = slab + r * Slab<TN, BANDS>::LD + first_column() + l % 4 * 2;
#pragma unroll
    for (uint32_t j = 0; j < ACROSS; j++) {
      *reinterpret_cast<float2*>(to + 8 * j) = float2{sum[pass][j][0], sum[pass][j][1]};
      *reinterpret_cast<float2*>(to + 8 * Slab<TN, BANDS>::LD + 8 * j) =
          float2{sum[pass][j][2], sum[pass][j][3]};
    }
  }
};

}  // namespace hs
