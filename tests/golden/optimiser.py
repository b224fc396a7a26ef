# SPDX-License-Identifier: Apache-2.0
"""Writes optimiser.f32 with PyTorch: three steps of Adam and of SGD with momentum on given gradients.
Run: python3 tests/golden/optimiser.py"""
import torch
from write import write

N, STEPS = 37, 3
torch.manual_seed(5)
start, grads = torch.ones(N), torch.randn(STEPS, N) * torch.logspace(-6, 2, N)
out = [grads.numpy()]
for make in (lambda p: torch.optim.Adam([p], lr=.06, betas=(.9, .99)), lambda p: torch.optim.SGD([p], lr=.15, momentum=.9)):
    p = start.clone().requires_grad_()
    optimiser = make(p)
    for g in grads:
        p.grad = g.clone()
        optimiser.step()
        out.append(p.detach().clone().numpy())
write("optimiser.f32", *out)
