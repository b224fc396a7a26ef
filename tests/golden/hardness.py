# SPDX-License-Identifier: Apache-2.0
"""Writes hardness.f32 with PyTorch: the values of a loss predictor in its file's order, tokens of two
images on the grid that it was learnt on and their maps, one on a larger grid and its map.
Run: python3 tests/golden/hardness.py"""
import torch
import torch.nn.functional as F
from write import write

D, W, DEPTH, HEADS, MLP, GRID, LARGER = 12, 8, 2, 2, 20, 3, 5
torch.manual_seed(11)
torch.set_default_dtype(torch.float64)


def values(*shape, around=0.):
    return (around + .4 * torch.randn(*shape)).float().double()


def layer(n_out, n_in):
    return [values(n_out, n_in), values(n_out)]


def norm():
    return [values(W, around=1.), values(W)]


entry = layer(W, D)
blocks = [[norm(), layer(3 * W, W), layer(W, W), norm(), layer(MLP, W), layer(W, MLP)] for _ in range(DEPTH)]
last, end = norm(), layer(1, W)


def waves(n, coordinate):
    omega = 1 / 10000**(torch.arange(n // 2) / (n / 2))
    return torch.cat([torch.sin(coordinate[:, None] * omega), torch.cos(coordinate[:, None] * omega)], 1)


def positions(grid):
    at = (torch.arange(grid) + .5) * GRID / grid - .5
    y, x = torch.meshgrid(at, at, indexing="ij")
    p = torch.cat([waves(W // 2, x.reshape(-1)), waves(W // 2, y.reshape(-1))], 1)
    return torch.cat([torch.zeros(1, W), p])


def hardness(tokens, grid):
    x = F.linear(tokens, *entry) + positions(grid)
    n, t, _ = x.shape
    for norm1, qkv, proj, norm2, fc1, fc2 in blocks:
        q, k, v = (F.linear(F.layer_norm(x, (W,), *norm1, eps=1e-6), *qkv)
                   .reshape(n, t, 3, HEADS, W // HEADS).permute(2, 0, 3, 1, 4))
        p = (q @ k.transpose(-2, -1) / (W // HEADS)**.5).softmax(-1)
        x = x + F.linear((p @ v).transpose(1, 2).reshape(n, t, W), *proj)
        x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (W,), *norm2, eps=1e-6), *fc1)), *fc2)
    return F.linear(F.layer_norm(x, (W,), *last, eps=1e-6), *end)[:, 1:, 0]


flat = entry + [t for _, qkv, proj, _, fc1, fc2 in blocks for part in (qkv, proj, fc1, fc2) for t in part]
flat += [t for norm1, _, _, norm2, _, _ in blocks for part in (norm1, norm2) for t in part] + last + end
tokens = torch.randn(2, 1 + GRID**2, D).float().double()
more = torch.randn(1, 1 + LARGER**2, D).float().double()
write("hardness.f32", *(t.numpy() for t in flat), tokens, hardness(tokens, GRID), more, hardness(more, LARGER))
