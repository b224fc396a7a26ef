# SPDX-License-Identifier: Apache-2.0
"""Writes figures.f32: embeddings, labels, and what k-NN and the episodes make of them, by brute force
in double. Run: python3 tests/golden/figures.py"""
import numpy as np
from philox import Stream
from write import write

N, DIM, SIZES, SEED = 120, 19, (60, 35, 22, 3), 7
rng = np.random.default_rng(11)
centres = rng.normal(size=(len(SIZES), DIM))
labels = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
x = (1.1 * centres[labels] + 2.2 * rng.normal(size=(N, DIM))).astype(np.float32)
f = x.astype(np.float64)
f /= np.linalg.norm(f, axis=1, keepdims=True)

similarity = f @ f.T
np.fill_diagonal(similarity, -9)
right = []
for i in range(N):
    votes = np.zeros(len(SIZES))
    for j in np.argsort(-similarity[i], kind="stable")[:20]:
        votes[labels[j]] += np.exp(similarity[i, j] / .1)
    right.append(votes.argmax() == labels[i])


def episode(shots, number):
    means, queries, want = [], [], []
    for c in range(len(SIZES)):
        members = np.flatnonzero(labels == c)
        members = members[Stream(SEED, shots, number, c).permutation(len(members))]
        k = min(shots, len(members) - 1)
        means.append(f[members[:k]].mean(0))
        queries += list(members[k:k + 15])
        want += [c] * len(members[k:k + 15])
    means = np.array(means) / np.linalg.norm(means, axis=1, keepdims=True)
    return ((f[queries] @ means.T).argmax(1) == want).mean()


out = [x.ravel(), labels, np.array(right)]
for shots in (1, 5):
    accuracy = np.array([episode(shots, e) for e in range(200)])
    out += [accuracy, [accuracy.mean(), 1.96 * accuracy.std(ddof=1) / np.sqrt(200)]]
write("figures.f32", *out)
print("knn", np.mean(right), "shots", out[4], out[6])
