"""The reduction beside PyTorch's DistributedDataParallel on gloo: `ddp.py [--rounds N] [--model NAME]`. Two processes, a
thread each, the gradients of a model of the workloads; the slower rank's time, medians over rounds. What a backward pass takes
without synchronisation is taken off DDP's. halfstep's numbers are those of `cargo bench --bench reduce`, over MPI, in the
same run. A mean that is not the mean ends it."""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

PLACE = Path(__file__).resolve().parents[3]
RANKS = 2
BUCKET = 25 << 20
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Model(torch.nn.Module):
    """Parameters and nothing else: the gradient of each element is `scale`."""

    def __init__(self, lengths, dtype):
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.zeros(n, dtype=dtype) for n in lengths)

    def forward(self, scale):
        return sum((weight * scale).sum() for weight in self.weights)


def slower(seconds):
    """The slower rank's."""
    most = torch.tensor([seconds], dtype=torch.float64)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return most.item()


def timed(rounds, before, call):
    times = []
    for turn in range(rounds + 1):
        state = before()
        dist.barrier()
        start = time.perf_counter()
        call(state)
        seconds = slower(time.perf_counter() - start)
        if turn > 0:  # the first one touches memory for the first time
            times.append(seconds)
    return statistics.median(times)


def rank(index, where, lengths, rounds, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{where}", rank=index, world_size=RANKS)
    mine, mean = 1.0 + index, statistics.mean(range(1, RANKS + 1))
    for name, dtype in TYPES.items():
        model = Model(lengths, dtype)
        ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=BUCKET >> 20)

        def forward():
            model.zero_grad(set_to_none=True)
            return ddp(mine)

        def alone_forward():
            model.zero_grad(set_to_none=True)
            return model(mine)

        backward = timed(rounds, forward, lambda loss: loss.backward())
        found = {weight.grad[-1].item() for weight in model.weights}
        assert found == {mean}, f"means of {found}"
        alone = timed(rounds, alone_forward, lambda loss: loss.backward())

        flat = torch.empty(sum(lengths), dtype=dtype)
        size = BUCKET // flat.element_size()

        def buckets(_):
            for part in flat.split(size):
                dist.all_reduce(part)

        def each(_):
            for part in flat.split(lengths):
                dist.all_reduce(part)

        ways = {"DDP, less the pass alone": backward - alone}
        ways["all_reduce, 25 MiB"] = timed(rounds, lambda: flat.fill_(mine), buckets)
        ways["all_reduce, per tensor"] = timed(rounds, lambda: flat.fill_(mine), each)
        assert flat[-1].item() == mean * RANKS
        if index == 0:
            results.put((name, ways))
    dist.barrier()
    os._exit(0)  # at an orderly end, threads of gloo's abort the process


def ours(rounds):
    """Milliseconds of each type, by the bench's own words."""
    command = ["cargo", "bench", "--features", "mpi", "--bench", "reduce"]
    subprocess.run([*command, "--no-run"], cwd=PLACE, check=True)
    environment = {**os.environ, "HALFSTEP_BENCH_ROUNDS": str(rounds)}
    filter = ["--", "nothing of this name"]
    said = subprocess.run(command + filter, cwd=PLACE, env=environment, capture_output=True, text=True)
    times = dict(re.findall(r"^(\w+) +this crate +([\d.]+)", said.stdout, re.M))
    if not times:
        sys.exit(f"no times of halfstep:\n{said.stdout}{said.stderr}")
    return {name: float(ms) / 1e3 for name, ms in times.items()}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--model", default="wav2vec2-base")
    options = options.parse_args()
    program = PLACE / "target/peers/release/halfstep-peers"
    asked = subprocess.run([program, "halfstep"], input=f"lengths {options.model}", capture_output=True, text=True)
    lengths = [int(word) for word in asked.stdout.split()]
    results = processes.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as place:
        arguments = (f"{place}/meet", lengths, options.rounds, results)
        processes.spawn(rank, arguments, nprocs=RANKS)
    ours_of = ours(options.rounds)
    print(f"{len(lengths)} tensors, {sum(lengths)} elements, {RANKS} processes; PyTorch {torch.__version__}, gloo")
    print(f"{'type':6}{'way':30}{'ms':>9}  times halfstep's")
    while not results.empty():
        name, ways = results.get()
        print(f"{name:6}{'halfstep, over MPI':30}{1e3 * ours_of[name]:9.1f}")
        for way, seconds in ways.items():
            print(f"{name:6}{way:30}{1e3 * seconds:9.1f}{seconds / ours_of[name]:9.1f}")


if __name__ == "__main__":
    main()
