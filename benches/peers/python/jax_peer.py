"""JAX on the CPU: `jax_peer.py THREADS`. XLA has no setting for its threads: it has as many processors to run on."""

import os
import sys

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-int(sys.argv[1]) :])
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

from protocol import Missing, operands, places, serve

TYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16}


def make(words):
    if words[0] not in ("forward", "plain", "dgrad", "wgrad"):
        raise Missing("products only")
    name, dtype = words[0], TYPES[words[1]]
    a, b, bias = (jnp.asarray(x).astype(dtype) for x in operands(name, *map(int, words[2:])))

    @jax.jit
    def multiply(a, b, bias):
        d = jnp.matmul(a.T if name == "wgrad" else a, b.T if name == "dgrad" else b)
        return jax.nn.gelu(d + bias, approximate=False) if name == "forward" else d

    d = None

    def run():
        nonlocal d
        d = multiply(a, b, bias).block_until_ready()

    def look():
        flat = np.asarray(d.astype(jnp.float32)).reshape(-1)
        return [flat[place] for place in places(len(flat))]

    return run, look


serve(make)
