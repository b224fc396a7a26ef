# SPDX-License-Identifier: Apache-2.0
"""Writes swav.f32 with PyTorch: Sinkhorn's assignments, the loss over four views, every gradient of
head and features. Run: python3 tests/golden/swav.py"""
import torch
import torch.nn.functional as F
from write import write

B, VIEWS, D, E, K, QUEUE = 6, 4, 10, 7, 9, 12
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
f = torch.randn(VIEWS * B, D).float().double().requires_grad_()
A = (torch.randn(E, D) / D**.5).float().double().requires_grad_()
b = (.1 * torch.randn(E)).float().double().requires_grad_()
C = F.normalize(torch.randn(K, E), dim=1).float().double().requires_grad_()
past = F.normalize(torch.randn(QUEUE, E), dim=1).float().double()


def sinkhorn(o, eps=.05, iterations=3):
    Q = torch.exp(o / eps).t()
    Q = Q / Q.sum()
    for _ in range(iterations):
        Q = Q / (Q.sum(1, keepdim=True) * Q.shape[0])
        Q = Q / (Q.sum(0, keepdim=True) * Q.shape[1])
    return (Q * Q.shape[1]).t()


z = F.normalize(f @ A.t() + b, dim=1)
o = z @ C.t()
views = o.split(B)
with torch.no_grad():
    q = [sinkhorn(views[0]), sinkhorn(torch.cat([past @ C.t(), views[1]]))[-B:]]
loss = 0
for v in range(2):
    for w in range(VIEWS):
        if w != v:
            loss = loss - (q[v] * F.log_softmax(views[w] / .1, 1)).sum(1).mean() / (VIEWS - 1) / 2
o.retain_grad()
loss.backward()
write("swav.f32", *(t.detach().numpy() for t in (f, A, b, C, past, z, o, q[0], q[1])), [loss.item()],
      *(t.grad.numpy() for t in (o, f, A, b, C)))
