// The crate's reduction kernels for gfx90a: the same entry points.
#include "reduce.cu"
