# SPDX-License-Identifier: Apache-2.0
"""Writes topk.f32 with PyTorch's autograd: masks of the highest scores of a tensor and the scores'
gradients through them and 1/sqrt(density). Run: python3 tests/golden/topk.py"""
import torch
from write import write

SIZES, KEEPS = (200, 67, 5, 3), (.5, .9, .1)
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)


class TopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s, k):
        out = s.clone()
        _, order = s.flatten().sort(stable=True)
        n_off = int((1 - k) * s.numel())
        out[order[:n_off]] = 0
        out[order[n_off:]] = 1
        return out

    @staticmethod
    def backward(ctx, g):
        return g, None


out = []
for k in KEEPS:
    for n in SIZES:
        W, G = torch.randn(n).float().double(), torch.randn(n).float().double()
        # Whole numbers: many are equal, some negative, some 0.
        S = (torch.randn(n) if n > 100 else torch.randint(-2, 3, (n,)).double()).float().double()
        S.requires_grad_()
        m = TopK.apply(S, k)
        (W * m / torch.sqrt(m.mean()) * G).sum().backward()
        out += [W.numpy(), G.numpy(), S.detach().numpy(), m.detach().numpy(), S.grad.numpy()]
write("topk.f32", *out)
