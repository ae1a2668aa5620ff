"""A peer as a process: the words of src/main.rs, and the numbers of src/data.rs, for Python."""

import sys
import time

import numpy as np

A, B, BIAS = 1, 2, 3
WEIGHT = np.float32(1 / 16)
GRADIENT, LOSS_SCALE = np.float32(0.01), np.float32(1024)


class Missing(Exception):
    """Why the peer has no such case."""


def values(length, seed, scale=np.float32(1)):
    """f32 in [-scale, scale), as in src/data.rs."""
    out = np.empty(length, np.float32)
    for start in range(0, length, 1 << 22):
        place = np.arange(start, min(length, start + (1 << 22)), dtype=np.uint64)
        mixed = (place + np.uint64(seed * 1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed >> np.uint64(40)) & np.uint64(0xFFFF)
        out[start : start + len(place)] = mixed.astype(np.float32) / np.float32(32768) - np.float32(1)
    out *= scale
    return out


def places(length):
    return [min(place, length - 1) for place in (0, length // 3, length // 2 + 1, length - 1)]


def operands(product, m, n, k):
    """A, B and the bias in f32, in the shapes in which they lie."""
    a = values(m * k, A).reshape((k, m) if product == "wgrad" else (m, k))
    b = values(k * n, B, WEIGHT).reshape((n, k) if product == "dgrad" else (k, n))
    return a, b, values(n, BIAS, WEIGHT)


def serve(make):
    """`make(words)` gives `(run, look)`, or raises Missing; `look()` is the whole answer, flat, or its four elements."""
    run = None
    for line in sys.stdin:
        words = line.split()
        try:
            if words[0] == "make":
                run = None
                run, look = make(words[1:])
                run()
                answer = "ok " + " ".join(repr(float(value)) for value in look())
            elif words[0] == "run":
                start = time.perf_counter()
                for _ in range(int(words[1])):
                    run()
                answer = repr((time.perf_counter() - start) / int(words[1]))
            elif words[0] == "drop":
                run = look = None
                answer = "ok"
            else:
                answer = "no such command"
        except Missing as why:
            answer = f"no {why}"
        except Exception as error:  # a peer's own failure is a line of the table
            answer = "no " + " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(answer, flush=True)
