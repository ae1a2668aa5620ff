"""C libraries of matrix products: `blas_peer.py openblas|mkl THREADS`. Products only; MKL's of 16 bits give f32, which
is less work than the others' (nothing is rounded back)."""

import ctypes
import glob
import os
import sys

NAME, THREADS = sys.argv[1], sys.argv[2]
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = THREADS

import ml_dtypes
import numpy as np

from protocol import Missing, operands, places, serve

if NAME == "openblas":
    import scipy_openblas32

    folder = scipy_openblas32.get_lib_dir()
    library = ctypes.CDLL(glob.glob(os.path.join(folder, "libscipy_openblas*.so"))[0])
    prefix = "scipy_"
else:
    library = ctypes.CDLL(glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so*"))[0])
    prefix = ""
    library.MKL_Set_Num_Threads(int(THREADS))

ROW_MAJOR, NOT, TRANSPOSED = 101, 111, 112
FUNCTIONS = {"f32": ("cblas_sgemm", np.float32)}
if NAME == "mkl":
    FUNCTIONS["bf16"] = ("cblas_gemm_bf16bf16f32", ml_dtypes.bfloat16)
    FUNCTIONS["f16"] = ("cblas_gemm_f16f16f32", np.float16)


def make(words):
    name = words[0]
    if name not in ("plain", "dgrad", "wgrad") or words[1] not in FUNCTIONS:
        raise Missing("no such product")
    m, n, k = map(int, words[2:])
    symbol, dtype = FUNCTIONS[words[1]]
    function = getattr(library, prefix + symbol)
    function.restype = None
    a, b, _ = (np.ascontiguousarray(x.astype(dtype)) for x in operands(name, m, n, k))
    d = np.zeros((m, n), np.float32)
    first, lda = (TRANSPOSED, m) if name == "wgrad" else (NOT, k)
    second, ldb = (TRANSPOSED, k) if name == "dgrad" else (NOT, n)
    one, zero, pointer = ctypes.c_float(1), ctypes.c_float(0), ctypes.c_void_p

    def run():
        function(
            ROW_MAJOR, first, second, m, n, k, one,
            a.ctypes.data_as(pointer), lda, b.ctypes.data_as(pointer), ldb, zero, d.ctypes.data_as(pointer), n,
        )  # fmt: skip

    return run, lambda: [d.reshape(-1)[place] for place in places(m * n)]


serve(make)
