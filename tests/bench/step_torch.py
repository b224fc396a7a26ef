# SPDX-License-Identifier: Apache-2.0
"""The peer of a learning step: the same network, pixels, start, head, loss and optimisers in PyTorch, in
f32, from what learn_step --save wrote.

  --compare: takes its steps and compares every loss; exit 1 where one differs by more than 1e-3
  else: seconds of a step (its pixels given, so no views are drawn), median of those after the first
  two, with each number of --threads

Run: /usr/bin/python3 tests/bench/step_torch.py MODEL START [--compare] [--steps 7] [--threads 1 2]
"""
import argparse
import math
import os
import statistics
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../oracle"))
from make_goldens import LAYERS, StraightThrough, forward, read  # noqa: E402

TOLERANCE = 1e-3
HEADS, EMBEDDING, PROTOTYPES, TEMPERATURE, EPS, ITERATIONS = 3, 128, 100, .1, .05, 3
STEPS, SCORE_LR, HEAD_LR = 100, .03, .15  # of the whole round: the rates go by it

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("start")
ap.add_argument("--compare", action="store_true")
ap.add_argument("--steps", type=int, default=7)
ap.add_argument("--threads", type=int, nargs="+", default=[1, 2])
ap.add_argument("--batch", type=int, default=64)
ap.add_argument("--large", type=int, default=112)
ap.add_argument("--small", type=int, default=64)
ap.add_argument("--n-small", type=int, default=2)
a = ap.parse_args()

model = {name: tensor.float() for name, tensor in read(a.model).items()}
depth = 1 + max(int(name.split(".")[1]) for name in model if name.startswith("blocks."))
width = model["norm.weight"].shape[0]
masked = ["blocks.%d.%s.%s" % (b, n, w) for b in range(depth) for n in LAYERS for w in ("weight", "bias")]
flat = np.memmap(a.start, np.float32, "r")


class Saved:
    """Hands out one array after the other."""

    def __init__(self):
        self.at = 0

    def take(self, *shape):
        n = math.prod(shape)
        self.at += n
        return torch.from_numpy(np.array(flat[self.at - n:self.at])).reshape(shape)

    def step(self):
        return (self.take(2 * a.batch, 3, a.large, a.large), self.take(a.n_small * a.batch, 3, a.small, a.small),
                self.take(1).item())


def sinkhorn(o):
    q = torch.exp(o / EPS).t()
    for _ in range(ITERATIONS):
        q = q / (q.sum(1, keepdim=True) * q.shape[0])
        q = q / (q.sum(0, keepdim=True) * q.shape[1])
    return (q * q.shape[1]).t()


class Round:
    def __init__(self):
        self.saved, self.steps = Saved(), 0
        self.scores = {n: self.saved.take(*model[n].shape).requires_grad_() for n in masked}
        shapes = (EMBEDDING, width), (EMBEDDING,), (PROTOTYPES, EMBEDDING)
        self.head = [self.saved.take(*s).requires_grad_() for s in shapes]
        self.adam = torch.optim.Adam(self.scores.values(), lr=SCORE_LR, betas=(.9, .99), eps=1e-8)
        self.sgd = torch.optim.SGD(self.head, lr=HEAD_LR, momentum=.9)

    def loss(self, large, small):
        A, b, C = self.head
        tensors = dict(model)
        for n, s in self.scores.items():
            m = StraightThrough.apply(s)
            tensors[n] = model[n] * m / torch.sqrt(m.mean())
        f = torch.cat([forward(tensors, x, HEADS, depth) for x in (large, small)])
        o = (F.normalize(f @ A.t() + b, dim=1) @ C.t()).split(a.batch)
        loss = 0
        for v in range(2):
            with torch.no_grad():
                q = sinkhorn(o[v])
            for w in range(len(o)):
                if w != v:
                    loss = loss - (q * F.log_softmax(o[w] / TEMPERATURE, 1)).sum(1).mean() / (len(o) - 1) / 2
        return loss

    def step(self, large, small):
        share = .5 * (1 + math.cos(math.pi * self.steps / STEPS))
        self.adam.param_groups[0]["lr"], self.sgd.param_groups[0]["lr"] = SCORE_LR * share, HEAD_LR * share
        self.adam.zero_grad(), self.sgd.zero_grad()
        loss = self.loss(large, small)
        loss.backward()
        self.adam.step(), self.sgd.step()
        with torch.no_grad():
            self.head[2].copy_(F.normalize(self.head[2], dim=1))
        self.steps += 1
        return loss.item()


def compare():
    round_, worst = Round(), 0
    for i in range(a.steps):
        large, small, want = round_.saved.step()
        got = round_.step(large, small)
        worst = max(worst, abs(got / want - 1))
        print("step %d loss %.6f, PyTorch %.6f" % (i, want, got), flush=True)
    print("losses differ by %.1e at most, relatively" % worst)
    return int(worst > TOLERANCE)


def measure(threads):
    torch.set_num_threads(threads)
    round_, seconds, cpu = Round(), [], []
    large, small, _ = round_.saved.step()
    for _ in range(a.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        round_.step(large, small)
        seconds.append(time.perf_counter() - start), cpu.append(time.process_time() - cpu_start)
    print("torch %s threads %d step_s %.3f fastest %.3f cpu_s %.3f" % (
        torch.__version__, threads, statistics.median(seconds[2:]), min(seconds[2:]), statistics.mean(cpu[2:])), flush=True)


if a.compare:
    sys.exit(compare())
for threads in a.threads:
    measure(threads)
