# SPDX-License-Identifier: Apache-2.0
"""Writes linear.f32 with PyTorch in double: rows, labels, and the weights and classes of the linear probe
(algorithms.md 1.8) by Newton's method on the full Hessian. Run: python3 tests/golden/linear.py"""
import torch
import torch.nn.functional as F
from write import write

N, D, C = 90, 11, 4
torch.set_default_dtype(torch.float64)
torch.manual_seed(6)
y = torch.arange(N) % C
x = (1.5 * torch.randn(C, D)[y] + 2 * torch.randn(N, D) * torch.linspace(2, .2, D) + 1).float().double()
X = torch.cat([x, torch.ones(N, 1)], 1)


def loss(w):
    w = w.reshape(C, D + 1)
    return F.cross_entropy(X @ w.t(), y) + .01 / N / 2 * (w * w).sum()


w = torch.zeros(C * (D + 1))
for step in range(60):
    g = torch.autograd.functional.jacobian(loss, w)
    H = torch.autograd.functional.hessian(loss, w)
    d = torch.linalg.solve(H, -g)
    t = 1.
    while loss(w + t * d) > loss(w) + 1e-4 * t * (g @ d):
        t /= 2
    w = w + t * d
    if g.abs().max() < 1e-13:
        break
print("steps", step, "loss", loss(w).item(), "slope", g.abs().max().item())
write("linear.f32", x.numpy(), y.numpy(), w.numpy(), (X @ w.reshape(C, D + 1).t()).argmax(1).numpy(), [loss(w).item()])
