# SPDX-License-Identifier: Apache-2.0
"""Writes mixture.f32 with numpy in double: whitening by a singular value decomposition, and expectation and
maximisation of a Gaussian mixture from a given start, densities by determinant and inverse of the covariance.
Run: python3 tests/golden/mixture.py"""
import numpy as np
from write import write

N, D, F = 70, 9, 4
rng = np.random.default_rng(3)
x = (rng.normal(size=(N, D)) * np.linspace(3, .2, D) @ np.linalg.qr(rng.normal(size=(D, D)))[0] + 2).astype(np.float32)
mean = x.astype(np.float64).mean(0)
U, S, V = np.linalg.svd(x - mean, full_matrices=False)
sign = np.sign(V[np.arange(F), np.abs(V[:F]).argmax(1)])
whitening = [x, mean, V[:F] / S[:F, None] * sign[:, None], U[:, :F] * sign]

N, D, K, RIDGE, TOL = 150, 5, 3, 1e-6, 1e-3
centres = 1.6 * rng.normal(size=(K, D))
shapes = [rng.normal(size=(D, D)) * .6 + np.eye(D) for _ in range(K)]
x = np.concatenate([c + rng.normal(size=(N // K, D)) @ s for c, s in zip(centres, shapes)]).astype(np.float32)
x = x[rng.permutation(N)]
start = ((x[:, None] - x[None, :K]) ** 2).sum(2).argmin(1)


def maximise(r):
    mass = r.sum(0)
    means = (r.T @ x) / mass[:, None]
    covariances = [(r[:, k, None] * (x - means[k])).T @ (x - means[k]) / mass[k] + RIDGE * np.eye(D) for k in range(K)]
    return mass / N, means, covariances


def joint(p):
    out = []
    for weight, m, c in zip(*p):
        d = x - m
        out.append(np.log(weight) - .5 * (D * np.log(2 * np.pi) + np.linalg.slogdet(c)[1] + (d @ np.linalg.inv(c) * d).sum(1)))
    return np.array(out).T


p, likelihood = maximise(np.eye(K)[start]), -np.inf
for iteration in range(1, 101):
    j = joint(p)
    total = np.log(np.exp(j).sum(1))
    last, likelihood = likelihood, total.mean()
    p = maximise(np.exp(j - total[:, None]))
    if abs(likelihood - last) < TOL:
        break
factors = [np.linalg.inv(np.linalg.cholesky(c)) for c in p[2]]
bias = np.log(p[0]) + [np.log(np.diag(f)).sum() for f in factors]
print("iterations", iteration, "likelihood", likelihood, "weights", p[0])
write("mixture.f32", *[a.ravel() for a in whitening], x, start, bias, p[1], *[f[np.tril_indices(D)] for f in factors],
      joint(p).argmax(1), [likelihood, iteration])
