// One AdamW step for gfx90a: the same source.
#include <hip/hip_runtime.h>
#define __grid_constant__
#include "adamw.cu"
