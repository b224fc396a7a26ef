# SPDX-License-Identifier: Apache-2.0
"""Writes scores.f32 with PyTorch's autograd: gradients of scores through threshold and 1/sqrt(density).
Run: python3 tests/golden/scores.py"""
import torch
from write import write

SIZES, DROPPED = (200, 67, 5, 3), (.1, .6, 0, 1)
torch.manual_seed(6)
torch.set_default_dtype(torch.float64)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s):
        return (s > 0).double()

    @staticmethod
    def backward(ctx, g):
        return g


out = []
for n, p in zip(SIZES, DROPPED):
    W, G = torch.randn(n).float().double(), torch.randn(n).float().double()
    S = (torch.rand(n) - p).float().double().requires_grad_()
    m = StraightThrough.apply(S)
    # The guard of an empty tensor: its density counts as 1/n, a constant.
    effective = W * m / torch.sqrt(m.mean().clamp(min=1 / n))
    (effective * G).sum().backward()
    out += [W.numpy(), G.numpy(), S.detach().numpy(), S.grad.numpy()]
write("scores.f32", *out)
