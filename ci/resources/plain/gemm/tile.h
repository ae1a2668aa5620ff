// tile.h, with the options compiled out that tiles know of. Found before it, where ci/resources/run compiles the
// products that the others' registers are compared with.
#pragma once
#define GATED GATED_AS_AN_OPTION
#define D_TRANSPOSED D_TRANSPOSED_AS_AN_OPTION
#include "../../../../kernels/common/gemm/tile.h"
#undef GATED
#undef D_TRANSPOSED

namespace hs {

constexpr uint32_t GATED = 0;  // no launch is
constexpr uint32_t D_TRANSPOSED = 0;

}  // namespace hs
