"""Runs halfstep and its peers side by side: each is a process, rounds go through all of them by turns, and ratios are
taken inside a round. Prints one line a row and writes a record; see README.md."""

import argparse
import atexit
import csv
import math
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from protocol import A, B, BIAS, GRADIENT, LOSS_SCALE, WEIGHT, places
import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

# M, N, K: rows, outputs, inputs.
SHAPES = [(512, 512, 512), (1024, 1024, 1024), (2048, 3072, 768), (128, 3072, 768), (1000, 333, 777)]
FEW = [(1, 4096, 4096), (4, 4096, 4096)]
# A router of 8 experts, and its weight gradient.
ROUTER = [("plain", (2048, 8, 4096)), ("dgrad", (2048, 8, 4096)), ("wgrad", (4096, 8, 2048))]
ENOUGH = 4e-3  # seconds that calls are repeated for
SLOW = 3.0  # times halfstep's; slower peers are timed once


def rows(length, model):
    """Every comparison: the words of the case, arithmetic, bytes, and which roof is over it."""
    out = []
    for shape in SHAPES:
        for name in ("forward", "dgrad", "wgrad", "plain"):
            for dtype in ("bf16", "f16", "f32"):
                if name != "plain" or dtype == "f32":
                    out.append((name, dtype, shape))
    for dtype in ("bf16", "f16", "f32"):
        out += [(name, dtype, shape) for shape in FEW for name in ("plain", "dgrad")]
        out += [(name, dtype, shape) for name, shape in ROUTER]
    found = []
    for name, dtype, (m, n, k) in out:
        size = 4 if dtype == "f32" else 2
        roof = "read" if m <= 4 or n <= 8 else "flops"
        found.append((f"{name} {dtype} {m} {n} {k}", 2.0 * m * n * k, size * (m * k + k * n + m * n), roof))
    for lengths in ([length], model):
        found.append(("adamw " + " ".join(map(str, lengths)), 0, 30 * sum(lengths), "update"))
    for length in (1 << 16, 1 << 25):
        for pair in ("f32 bf16", "bf16 f32", "f32 f16", "f16 f32"):
            found.append((f"convert {pair} {length}", 0, 6 * length, "copy"))
    return found


def label(case):
    words = case.split()
    if words[0] == "adamw":
        return f"adamw {len(words) - 1} tensors {sum(map(int, words[1:]))}"
    return case


def at(place, seed, scale, dtype="f32"):
    """One of the numbers, rounded to the type."""
    mixed = ((place + seed * 1_000_003) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 40 & 0xFFFF
    return rounded(np.float32(scale) * np.float32(mixed / 32768 - 1), dtype)


def rounded(value, dtype):
    import ml_dtypes

    types = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
    return float(np.float32(value).astype(types[dtype]))


def expected(case):
    """The four elements in f64, and how far each may be off."""
    words = case.split()
    if words[0] == "convert":
        length = int(words[3])
        values = [rounded(at(p, A, 1, words[1]), words[2]) for p in places(length)]
        return [(value, 0.0) for value in values]
    if words[0] == "adamw":
        # Of a first step: every gradient counts by its sign.
        params, out = [int(word) for word in words[1:]], []
        squares = (float(GRADIENT) ** 2 / 3) * sum(params)
        clip = min(1.0, 1 / math.sqrt(squares))
        for place in places(params[0]):
            g = at(place, B, GRADIENT * LOSS_SCALE, "bf16") / float(LOSS_SCALE) * clip
            value = at(place, A, 1) * (1 - 1e-5) - 1e-3 * g / (abs(g) + 1e-8)
            out.append((value, 3e-5))
        return out
    name, dtype, m, n, k = words[0], words[1], *map(int, words[2:])
    out = []
    for place in places(m * n):
        i, j = divmod(place, n)
        ps = range(k)
        a = [at(p * m + i if name == "wgrad" else i * k + p, A, 1, dtype) for p in ps]
        b = [at(j * k + p if name == "dgrad" else p * n + j, B, WEIGHT, dtype) for p in ps]
        total = math.fsum(x * y for x, y in zip(a, b))
        if name == "forward":
            total += at(j, BIAS, WEIGHT, dtype)
            total = total * 0.5 * (1 + math.erf(total / math.sqrt(2)))
        # Some peers round sums of 16 bits on their way.
        unit = {"f32": 2**-24, "bf16": 2**-8, "f16": 2**-11}[dtype]
        out.append((total, 1e-5 * k / 16 + 4 * unit * max(abs(total), k**0.5 / 16)))
    return out


class Peer:
    """A process that answers each line with a line, and is stopped otherwise: threads that wait for work awake, as each
    library has its own way of, do not take the processors from the next peer."""

    def __init__(self, name, command, environment):
        self.name, self.command, self.environment = name, command, environment
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.environment
        )
        atexit.register(self.process.kill)

    def ask(self, line):
        self.process.send_signal(signal.SIGCONT)
        try:
            print(line, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        self.process.send_signal(signal.SIGSTOP)
        if not answer:
            self.process.kill()
            self.start()
            return "no it died"
        return answer

    def make(self, case):
        """None, or why not."""
        answer = self.ask(f"make {case}")
        if not answer.startswith("ok"):
            return answer
        found = [float(word) for word in answer.split()[1:]]
        for got, (value, bound) in zip(found, expected(case)):
            if not abs(got - value) <= bound:
                self.ask("drop")
                return f"wrong: {got}, not {value:.6g}"
        return None


# halfstep where AMX has not been asked for. No peer, but worth a look.
CHAIN = "halfstep-chain"


def peers(threads):
    import os

    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), MATMUL_NUM_THREADS=str(threads))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[variable] = str(threads)
    rust = str(ROOT / "target/peers/release/halfstep-peers")
    python = [sys.executable]
    commands = {
        "halfstep": [rust, "halfstep"],
        CHAIN: [rust, CHAIN],
        "torch": python + [str(HERE / "torch_peer.py"), "eager"],
        "torch-upcast": python + [str(HERE / "torch_peer.py"), "upcast"],
        "torch-compile": python + [str(HERE / "torch_peer.py"), "compile"],
        "jax": python + [str(HERE / "jax_peer.py")],
        "onednn": python + [str(HERE / "onednn_peer.py")],
        "mkl": python + [str(HERE / "blas_peer.py"), "mkl"],
        "openblas": python + [str(HERE / "blas_peer.py"), "openblas"],
        "numpy": python + [str(HERE / "numpy_peer.py")],
        "gemm": [rust, "gemm"],
        "faer": [rust, "faer"],
        "matrixmultiply": [rust, "matrixmultiply"],
        "burn": [rust, "burn"],
        "candle": [rust, "candle"],
        "half": [rust, "half"],
    }
    return {name: Peer(name, command + [str(threads)], environment) for name, command in commands.items()}


def compare(case, roof, everyone, rounds, say):
    """Medians of seconds, and of the ratio to halfstep's, by peer; and the roof's median."""
    ours = everyone["halfstep"]
    here = []
    for peer in everyone.values():
        why = peer.make(case)
        if why is None:
            here.append(peer)
        elif peer is ours or why.startswith("wrong") or "died" in why or "Error" in why:
            say(f"  {peer.name}, {label(case)}: {why}")
    if ours not in here:
        return None
    calls, seconds, ratios, roofs = {}, {p.name: [] for p in here}, {p.name: [] for p in here}, []
    base = float(ours.ask("run 1"))
    for peer in list(here):
        first = float(peer.ask("run 1"))
        calls[peer.name] = max(1, min(1000, int(ENOUGH / first)))
        if first > SLOW * base and first > 0.02:
            # Far behind: once is enough.
            seconds[peer.name], ratios[peer.name] = [first], [first / base]
            peer.ask("drop")
            here.remove(peer)
    for _ in range(rounds):
        roofs.append(float(ours.ask(f"roof {roof}")))
        mine = float(ours.ask(f"run {calls['halfstep']}"))
        for peer in here:
            taken = mine if peer is ours else float(peer.ask(f"run {calls[peer.name]}"))
            seconds[peer.name].append(taken)
            ratios[peer.name].append(taken / mine)
    for peer in here:
        peer.ask("drop")
    median = statistics.median
    result = {name: (median(seconds[name]), median(ratios[name])) for name in seconds}
    return result, max(roofs) if roof == "flops" else median(roofs)


def heading():
    """What was compared, and where."""
    import datetime
    import importlib.metadata
    import os
    import re

    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    lock = (HERE.parent / "Cargo.lock").read_text()
    crates = ("gemm", "faer", "matrixmultiply", "burn-flex", "candle-core", "half")
    found = [(crate, re.search(f'name = "{crate}"\nversion = "([^"]*)"', lock)) for crate in crates]
    packages = [(name, version(name)) for name in ("torch", "jax", "onednn-cpu-gomp", "mkl", "scipy-openblas32", "numpy", "ml_dtypes")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    processor = re.search("model name\\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return [
        f"{datetime.date.today()}, halfstep {commit.stdout.strip()}, {processor[1] if processor else '?'}, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}",
        ", ".join(f"{name} {text}" for name, text in packages + [(name, m[1]) for name, m in found if m]),
        "",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--len", type=int, default=100_000_000, help="parameters of the optimizer's tensor")
    parser.add_argument("--filter", default="", help="only rows that contain this")
    parser.add_argument("--record", help="where to write FILE.csv and FILE.txt")
    options = parser.parse_args()
    lines, data = [], []

    def say(text):
        print(text, flush=True)
        lines.append(text)
        if options.record:
            Path(options.record + ".txt").write_text("\n".join(lines) + "\n")

    for line in heading():
        say(line)
    say(f"{'row':34} {'threads':>7} {'ms':>9} {'of roof':>8}  {'best peer':>15} {'ratio':>6}  others, times slower")
    behind = 0
    for threads in options.threads:
        everyone = peers(threads)
        model = [int(word) for word in everyone["halfstep"].ask("lengths wav2vec2-base").split()]
        for case, flops, traffic, roof in rows(options.len, model):
            if options.filter not in label(case):
                continue
            found = compare(case, roof, everyone, options.rounds, say)
            if found is None:
                continue
            result, limit = found
            mine = result.pop("halfstep")[0]
            share = (flops if roof == "flops" else traffic) / limit / mine
            order = sorted(result.items(), key=lambda item: item[1][1])
            best = next((name for name, _ in order if name != CHAIN), "")
            ratio = result[best][1] if best else math.nan
            behind += ratio < 1
            others = " ".join(f"{name} {value[1]:.2f}" for name, value in order if name != best)
            say(f"{label(case):34} {threads:7} {1e3 * mine:9.3f} {share:8.1%}  {best:>15} {ratio:6.2f}  {others}")
            data.append([label(case), threads, "halfstep", mine, 1.0, share])
            data += [[label(case), threads, name, value[0], value[1], ""] for name, value in order]
        for peer in everyone.values():
            peer.process.send_signal(signal.SIGCONT)
            peer.process.stdin.close()
            peer.process.wait(timeout=60)
    say(f"{behind} rows in which a peer is faster")
    if options.record:
        with open(options.record + ".csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "threads", "peer", "seconds", "times_slower", "share_of_roof"])
            writer.writerows(data)


if __name__ == "__main__":
    main()
