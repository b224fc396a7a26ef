# SPDX-License-Identifier: Apache-2.0
"""Writes adamw.f32 with PyTorch: the gradient clipped to length 3, then AdamW with decay on the matrix alone, five steps.
Run: python3 tests/golden/adamw.py"""
import torch
from write import write

STEPS = 5
torch.manual_seed(7)
matrix, bias = torch.randn(5, 7), torch.randn(11)
grads = [(torch.randn(5, 7) * torch.logspace(-5, 1, 7), torch.randn(11)) for _ in range(STEPS)]
ps = [matrix.clone().requires_grad_(), bias.clone().requires_grad_()]
optimiser = torch.optim.AdamW([{"params": [ps[0]], "weight_decay": .3}, {"params": [ps[1]], "weight_decay": 0}], lr=.02, betas=(.9, .95))
out = [matrix.numpy(), bias.numpy()]
for g in grads:
    ps[0].grad, ps[1].grad = g[0].clone(), g[1].clone()
    length = torch.nn.utils.clip_grad_norm_(ps, 3.)
    optimiser.step()
    out += [g[0].numpy(), g[1].numpy(), length.numpy().reshape(1), ps[0].detach().clone().numpy(), ps[1].detach().clone().numpy()]
write("adamw.f32", *out)
