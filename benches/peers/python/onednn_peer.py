"""oneDNN by itself: `onednn_peer.py THREADS`. Its matmul primitive on operands as they lie, bias and GELU as its
post-operations; every type that it has on this processor. Products only."""

import ctypes
import glob
import os
import sys

os.environ["OMP_NUM_THREADS"] = sys.argv[1]

import ml_dtypes
import numpy as np

from protocol import Missing, operands, places, serve

library = ctypes.CDLL(glob.glob(os.path.join(sys.prefix, "lib", "libdnnl.so.3*"))[0])

# Of oneDNN's C API (dnnl_types.h).
CPU, IN_ORDER, GELU_ERF = 1, 1, 0x31
SRC, WEIGHTS, BIAS, DST = 1, 33, 41, 17
TYPES = {"f16": (1, np.float16), "bf16": (2, ml_dtypes.bfloat16), "f32": (3, np.float32)}
Dims, Pointer = ctypes.c_int64 * 12, ctypes.c_void_p


class Argument(ctypes.Structure):
    _fields_ = [("name", ctypes.c_int), ("memory", Pointer)]


def call(function, *arguments):
    """What it makes, which is its first argument."""
    made = Pointer()
    status = getattr(library, "dnnl_" + function)(ctypes.byref(made), *arguments)
    if status != 0:
        raise Missing(f"dnnl_{function}: status {status}")
    return made


engine = call("engine_create", CPU, ctypes.c_size_t(0))
stream = call("stream_create", engine, IN_ORDER)


def described(shape, strides, dtype):
    make = (ctypes.c_int(2), Dims(*shape), ctypes.c_int(TYPES[dtype][0]), Dims(*strides))
    return call("memory_desc_create_with_strides", *make)


def make(words):
    name, dtype = words[:2]
    if name not in ("forward", "plain", "dgrad", "wgrad"):
        raise Missing("products only")
    m, n, k = map(int, words[2:])
    arrays = [np.ascontiguousarray(x.astype(TYPES[dtype][1])) for x in operands(name, m, n, k)]
    arrays.append(np.zeros((m, n), TYPES[dtype][1]))
    shapes = [
        described((m, k), (1, m) if name == "wgrad" else (k, 1), dtype),
        described((k, n), (1, k) if name == "dgrad" else (n, 1), dtype),
        described((1, n), (n, 1), dtype),
        described((m, n), (n, 1), dtype),
    ]
    attributes = call("primitive_attr_create")
    if name == "forward":
        after = call("post_ops_create")
        library.dnnl_post_ops_append_eltwise(after, GELU_ERF, ctypes.c_float(0), ctypes.c_float(0))
        library.dnnl_primitive_attr_set_post_ops(attributes, after)
    bias = shapes[2] if name == "forward" else None
    what = call("matmul_primitive_desc_create", engine, shapes[0], shapes[1], bias, shapes[3], attributes)
    primitive = call("primitive_create", what)
    memories = [
        call("memory_create", shape, engine, array.ctypes.data_as(Pointer)) for shape, array in zip(shapes, arrays)
    ]
    names = [SRC, WEIGHTS, BIAS, DST]
    given = [(of, memory) for of, memory in zip(names, memories) if of != BIAS or bias]
    arguments = (Argument * len(given))(*[Argument(of, memory.value) for of, memory in given])

    def run():
        library.dnnl_primitive_execute(primitive, stream, len(given), arguments)
        library.dnnl_stream_wait(stream)

    # oneDNN has only the addresses: what is returned keeps the operands.
    return run, lambda: [arrays[3].reshape(-1)[place] for place in places(m * n)]


serve(make)
