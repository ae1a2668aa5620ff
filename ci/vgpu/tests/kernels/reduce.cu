// The crate's own reduction kernels, with the parameter blocks that its build script generates.
#include "target.h"
#include <stddef.h>
namespace hs {
struct Partial { double sum_squares; uint32_t non_finite, tensor; };
struct Pack { uint64_t gradient, accumulated, bucket, non_finite, shard, stride, offset, len; float scale; uint32_t gradient_type, wire, padding; };
struct Accumulate { uint64_t gradient, accumulated, len; uint32_t gradient_type, padding; };
struct Sum { uint64_t parts, weights, to, len; uint32_t ranks, from_type, to_type; float factor; };
struct Unpack { uint64_t shards, pieces, targets, partials, shard, count; float factor; uint32_t gradient_type, wire, padding; };
struct Target { uint64_t to, offset, partial; };
struct Piece { uint64_t start; uint32_t len, tensor; };
struct Quantize { uint64_t values, carried, to, stride, len; uint32_t blocks, padding; };
}  // namespace hs
#include "reduce/accumulate.h"
#include "reduce/pack.h"
#include "reduce/quantize.h"
#include "reduce/sum.h"
#include "reduce/unpack.h"
HS_KERNEL(hs_reduce_pack, Pack, 256, 2, pack)
HS_KERNEL(hs_reduce_accumulate, Accumulate, 256, 2, accumulate)
HS_KERNEL(hs_reduce_sum, Sum, 256, 2, sum)
HS_KERNEL(hs_reduce_quantize, Quantize, 256, 2, quantize)
HS_KERNEL(hs_reduce_unpack, Unpack, 256, 2, unpack)
