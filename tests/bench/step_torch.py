# SPDX-License-Identifier: Apache-2.0
"""The peer of a learning step: the same network, crops, head, loss and Adam step in PyTorch, on random
pixels (no images are read), with 1 and with 2 threads. Prints the median of the steps after the first two.

Run: python3 tests/bench/step_torch.py [--steps 7] [--batch 64] [--large 112] [--small 64]
"""
import argparse, math, statistics, time
import torch
import torch.nn.functional as F

ap = argparse.ArgumentParser()
ap.add_argument("--steps", type=int, default=7)
ap.add_argument("--batch", type=int, default=64)
ap.add_argument("--large", type=int, default=112)
ap.add_argument("--small", type=int, default=64)
ap.add_argument("--n-small", type=int, default=2)
ap.add_argument("--width", type=int, default=192)
ap.add_argument("--depth", type=int, default=12)
ap.add_argument("--heads", type=int, default=3)
ap.add_argument("--threads", type=int, nargs="+", default=[1, 2])
a = ap.parse_args()
D, PATCH, E, K, QUEUE = a.width, 16, 128, 100, 512
torch.manual_seed(0)


class Threshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s):
        return (s > 0).float()

    @staticmethod
    def backward(ctx, g):
        return g


def matrix(n_out, n_in):
    return torch.randn(n_out, n_in) / math.sqrt(n_in)


SHAPES = {"qkv": (3 * D, D), "proj": (D, D), "fc1": (4 * D, D), "fc2": (D, 4 * D)}
weights = [{n: matrix(*s) for n, s in SHAPES.items()} for _ in range(a.depth)]
biases = [{n: torch.zeros(s[0]) for n, s in SHAPES.items()} for _ in range(a.depth)]
masked = [t for group in (weights, biases) for block in group for t in block.values()]
scores = [torch.ones_like(t, requires_grad=True) for t in masked]
patches = torch.randn(D, 3, PATCH, PATCH) * .02
one, zero = torch.ones(D), torch.zeros(D)


def effective():
    return [w * (m := Threshold.apply(s)) / torch.sqrt(m.mean()) for w, s in zip(masked, scores)]


def forward(tensors, x):
    n = x.shape[0]
    t = F.conv2d(x, patches, stride=PATCH).flatten(2).transpose(1, 2)
    t = torch.cat([torch.zeros(n, 1, D), t], 1)
    for i in range(a.depth):
        w = dict(zip(SHAPES, tensors[i * 4:i * 4 + 4]))
        b = dict(zip(SHAPES, tensors[(a.depth + i) * 4:(a.depth + i) * 4 + 4]))
        y = F.layer_norm(t, (D,), one, zero, 1e-6)
        q, k, v = F.linear(y, w["qkv"], b["qkv"]).reshape(n, -1, 3, a.heads, D // a.heads).permute(2, 0, 3, 1, 4)
        y = (torch.softmax(q @ k.transpose(-1, -2) * (D // a.heads)**-.5, -1) @ v).transpose(1, 2).reshape(n, -1, D)
        t = t + F.linear(y, w["proj"], b["proj"])
        y = F.layer_norm(t, (D,), one, zero, 1e-6)
        t = t + F.linear(F.gelu(F.linear(y, w["fc1"], b["fc1"])), w["fc2"], b["fc2"])
    return F.layer_norm(t, (D,), one, zero, 1e-6)[:, 0]


@torch.no_grad()
def sinkhorn(o):
    q = torch.exp(o / .05).t()
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdim=True) * q.shape[0]
        q /= q.sum(0, keepdim=True) * q.shape[1]
    return (q * q.shape[1]).t()


proj, proto = torch.nn.Linear(D, E), torch.nn.Linear(E, K, bias=False)
score_step = torch.optim.Adam(scores, lr=.03, betas=(.9, .99))
head_step = torch.optim.SGD([*proj.parameters(), *proto.parameters()], lr=.15, momentum=.9)
past = F.normalize(torch.randn(QUEUE, E), dim=1)
large = torch.rand(2 * a.batch, 3, a.large, a.large) * 2 - 1
small = torch.rand(a.n_small * a.batch, 3, a.small, a.small) * 2 - 1


def step():
    with torch.no_grad():
        proto.weight.copy_(F.normalize(proto.weight, dim=1))
    tensors = effective()
    f = torch.cat([forward(tensors, large), forward(tensors, small)])
    views = proto(F.normalize(proj(f), dim=1)).split(a.batch)
    loss = 0
    for v in range(2):
        q = sinkhorn(torch.cat([past @ proto.weight.t().detach(), views[v].detach()]))[-a.batch:]
        loss = loss - sum((q * F.log_softmax(views[w] / .1, 1)).sum(1).mean() for w in range(len(views)) if w != v) / (len(views) - 1) / 2
    score_step.zero_grad(), head_step.zero_grad()
    loss.backward()
    score_step.step(), head_step.step()


for threads in a.threads:
    torch.set_num_threads(threads)
    seconds, cpu = [], []
    for _ in range(a.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - start), cpu.append(time.process_time() - cpu_start)
    print("torch %s threads %d step_s %.3f fastest %.3f cpu_s %.3f" % (
        torch.__version__, threads, statistics.median(seconds[2:]), min(seconds[2:]), statistics.mean(cpu[2:])), flush=True)
