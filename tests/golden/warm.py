# SPDX-License-Identifier: Apache-2.0
"""Writes warm.f32 with PyTorch: the projection from principal directions (rows up to sign), and
spherical k-means from a given start. Run: python3 tests/golden/warm.py"""
import torch
import torch.nn.functional as F
from write import write

N, D, E, K = 90, 12, 8, 7
torch.manual_seed(4)
torch.set_default_dtype(torch.float64)
f = (torch.randn(N, D) * torch.linspace(3, .3, D) @ torch.linalg.qr(torch.randn(D, D))[0] + 2).float().double()
mean = f.mean(0)
_, sv, V = torch.linalg.svd(f - mean, full_matrices=False)
A = V[:E] * ((sv[:E] / N**.5)**-.5)[:, None]
b = -A @ mean
Z = F.normalize(f @ A.t() + b, dim=1).float().double()
start = C = Z[torch.randperm(N)[:K]]
for _ in range(20):
    C = F.normalize(torch.zeros(K, E).index_add_(0, (Z @ C.t()).argmax(1), Z), dim=1)
write("warm.f32", f.numpy(), A.numpy(), b.numpy(), Z.numpy(), start.numpy(), C.numpy())
