# SPDX-License-Identifier: Apache-2.0
"""Writes opta.f32: Gaussian classes, the prototypes that OpTA moves and the shares that the mixture
finds, by numpy in double straight from algorithms.md 4.5 and engine/classify/opta.h.
Run: python3 tests/golden/opta.py"""
import numpy as np
from write import write

# classes, dimensions, supports, queries of each class, distance between classes
CASES = [
    (5, 24, 1, (15, 15, 15, 15, 15), .8),
    (5, 24, 5, (15, 15, 15, 15, 15), .6),
    (6, 17, 1, (60, 6, 6, 6, 6, 6), 1.0),
    (3, 8, 2, (1, 2, 30), .7),
]
EPS = .05


def unit(a):
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def log_sum_exp(a, axis):
    top = a.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(a - top).sum(axis))


def sinkhorn(cost):
    k, n = cost.shape
    u, v = np.zeros(k), np.zeros(n)
    for _ in range(1000):
        before = u
        u = u + EPS * (np.log(1 / k + 1e-8) - log_sum_exp((-cost + u[:, None] + v) / EPS, 1))
        v = v + EPS * (np.log(1 / n + 1e-8) - log_sum_exp((-cost + u[:, None] + v) / EPS, 0))
        if np.abs(u - before).sum() < 1e-4:
            break
    return np.exp((-cost + u[:, None] + v) / EPS)


def opta(p, z, passes):
    for _ in range(passes):
        cost = ((p[:, None] - z) ** 2).sum(2)
        pi = sinkhorn(cost / cost.max())
        p = pi / pi.sum(1, keepdims=True) @ z
    return p


def mixture(means, z, supports):
    middle = means.mean(0)
    start, z = unit(means - middle), unit(z - middle)
    p = start
    for _ in range(8):
        r = p @ z.T / .05
        r = np.exp(r - r.max(0))
        r /= r.sum(0)
        p = unit(6 * supports * start + r @ z)
    shares = r.mean(1)
    return (shares * np.log(shares * len(shares))).sum(), (p @ z.T).argmax(0)


rng = np.random.default_rng(45)
out = []
for k, dim, shots, counts, apart in CASES:
    centres = apart * rng.normal(size=(k, dim)) + 1
    labels = np.repeat(np.arange(k), counts)
    supports = (np.repeat(centres, shots, 0) + rng.normal(size=(k * shots, dim))).astype("<f4")
    queries = (centres[labels] + rng.normal(size=(len(labels), dim))).astype("<f4")
    means = unit(supports.astype(float)).reshape(k, shots, dim).mean(1)
    z = unit(queries.astype(float))
    moved = opta(means, z, 5 if shots == 1 else 2)
    imbalance, by_mixture = mixture(means, z, shots)
    by_opta = (unit(moved) @ z.T).argmax(0)
    is_balanced = imbalance <= .05 + .07 / shots
    out += [supports, queries, moved, by_opta, [imbalance], by_mixture]
    print("proto %.3f opta %.3f mixture %.3f imbalance %.4f %s" % (
        ((unit(means) @ z.T).argmax(0) == labels).mean(), (by_opta == labels).mean(),
        (by_mixture == labels).mean(), imbalance, is_balanced))
write("opta.f32", *out)
