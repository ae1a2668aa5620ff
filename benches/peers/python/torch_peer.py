"""PyTorch: `torch_peer.py MODE THREADS`. Modes: eager (operations in the operands' type), upcast (16-bit operands to f32
in memory taken beforehand, an f32 product, back), compile (torch.compile)."""

import sys

import torch

from protocol import A, B, GRADIENT, LOSS_SCALE, Missing, operands, places, serve, values

MODE, THREADS = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(THREADS)
torch.set_grad_enabled(False)
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def look(tensor):
    flat = tensor.reshape(-1)
    return [flat[place].item() for place in places(flat.numel())]


def product(name, dtype, m, n, k):
    a, b, bias = (torch.from_numpy(x).to(TYPES[dtype]) for x in operands(name, m, n, k))
    d = torch.zeros(m, n, dtype=TYPES[dtype])
    if MODE == "compile":
        raise Missing("optimizer steps only")
    if MODE == "upcast" and dtype == "f32":
        raise Missing("the same as eager")
    x, w = (a.t() if name == "wgrad" else a), (b.t() if name == "dgrad" else b)
    if MODE == "eager":

        def run():
            nonlocal d
            if name == "forward":
                d = torch.nn.functional.gelu(torch.addmm(bias, x, w))
            else:
                torch.mm(x, w, out=d)

    else:
        wide_a, wide_b, wide_bias = a.float(), b.float(), bias.float()
        wide_d = torch.zeros(m, n)
        x, w = (wide_a.t() if name == "wgrad" else wide_a), (wide_b.t() if name == "dgrad" else wide_b)

        def run():
            wide_a.copy_(a)
            wide_b.copy_(b)
            if name == "forward":
                wide_bias.copy_(bias)
                torch.addmm(wide_bias, x, w, out=wide_d)
                d.copy_(torch.nn.functional.gelu(wide_d))
            else:
                torch.mm(x, w, out=wide_d)
                d.copy_(wide_d)

    return run, lambda: look(d)


LR, BETA1, BETA2, EPS, DECAY, CLIP = 1e-3, 0.9, 0.999, 1e-8, 1e-2, 1.0


def adamw(lengths):
    params = [torch.from_numpy(values(length, A)) for length in lengths]
    grads = [torch.from_numpy(values(length, B, GRADIENT * LOSS_SCALE)).bfloat16() for length in lengths]
    copies = [param.bfloat16() for param in params]
    inverse = float(1 / LOSS_SCALE)
    if MODE == "compile":
        if len(lengths) > 1:
            raise Missing("one tensor only")
        p, g, copy = params[0], grads[0], copies[0]
        m, v = torch.zeros_like(p), torch.zeros_like(p)
        step = 0

        @torch.compile
        def norm(g):
            return (g.float() * inverse).square().sum().sqrt()

        @torch.compile
        def update(p, g, m, v, copy, scale, rate, root):
            g = g.float() * scale
            m.mul_(BETA1).add_(g * (1 - BETA1))
            v.mul_(BETA2).add_(g * g * (1 - BETA2))
            p.mul_(1 - LR * DECAY).sub_(rate * m / (v.sqrt() * root + EPS))
            copy.copy_(p)

        def run():
            nonlocal step
            size = norm(g).item()
            if not size < float("inf"):
                return
            step += 1
            scale = inverse * min(1.0, CLIP / (size + 1e-6))
            tensor = torch.tensor
            rate = LR / (1 - BETA1**step)
            root = (1 - BETA2**step) ** -0.5
            update(p, g, m, v, copy, tensor(scale), tensor(rate), tensor(root))

    else:
        if MODE != "eager":
            raise Missing("the same as eager")
        for param in params:
            param.grad = torch.zeros_like(param)
        wide = [param.grad for param in params]
        optimizer = torch.optim.AdamW(params, lr=LR, weight_decay=DECAY, fused=True)

        def run():
            torch._foreach_copy_(wide, grads)
            torch._foreach_mul_(wide, inverse)
            norms = torch._foreach_norm(wide)
            size = torch.linalg.vector_norm(torch.stack(norms)).item()
            if not size < float("inf"):
                return
            torch._foreach_mul_(wide, min(1.0, CLIP / (size + 1e-6)))
            optimizer.step()
            torch._foreach_copy_(copies, params)

    return run, lambda: look(params[0])


def convert(source, target, length):
    if MODE != "eager":
        raise Missing("the same as eager")
    x = torch.from_numpy(values(length, A)).to(TYPES[source])
    y = torch.zeros(length, dtype=TYPES[target])
    return (lambda: y.copy_(x)), (lambda: look(y))


def make(words):
    if words[0] in ("forward", "plain", "dgrad", "wgrad"):
        return product(words[0], words[1], *map(int, words[2:]))
    if words[0] == "adamw":
        return adamw([int(word) for word in words[1:]])
    return convert(words[1], words[2], int(words[3]))


serve(make)
