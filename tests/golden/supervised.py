# SPDX-License-Identifier: Apache-2.0
"""Writes supervised.f32 with PyTorch in double: cross-entropy on a frozen linear head that is masked by
scores of its own, its gradients with respect to features and scores. The last rows have no class.
Run: python3 tests/golden/supervised.py"""
import torch
import torch.nn.functional as F
from write import write

ROWS, UNKNOWN, WIDTH, CLASSES = 12, 2, 16, 5
torch.manual_seed(8)
torch.set_default_dtype(torch.float64)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s):
        return (s > 0).double()

    @staticmethod
    def backward(ctx, g):
        return g


def normal(*shape):
    return torch.randn(*shape).float().double()


f, W = normal(ROWS, WIDTH).requires_grad_(), normal(CLASSES, WIDTH)
S = (torch.rand(CLASSES, WIDTH) - .2).float().double().requires_grad_()
labels = torch.arange(ROWS) * 7 % CLASSES
m = StraightThrough.apply(S)
n = ROWS - UNKNOWN
loss = F.cross_entropy((f @ (W * m / torch.sqrt(m.mean())).t())[:n], labels[:n])
loss.backward()
write("supervised.f32", f.detach().numpy(), W.numpy(), S.detach().numpy(), [loss.item()],
      f.grad.numpy(), S.grad.numpy())
