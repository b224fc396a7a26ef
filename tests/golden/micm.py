# SPDX-License-Identifier: Apache-2.0
"""Writes micm.f32 with PyTorch in double: the projection head and every gradient of it, a teacher's
targets and centre, and the four losses of algorithms.md 4.3 with the gradients of the student's
outputs. Run: python3 tests/golden/micm.py"""
import torch
import torch.nn.functional as F
from write import write

ROWS, D, HIDDEN, DIM, K = 140, 10, 12, 6, 9
BATCH, VIEWS, MASKED, PIXELS, PIXELS_ALL = 5, 4, 13, 40, 200
torch.manual_seed(17)
torch.set_default_dtype(torch.float64)


def normal(*shape, scale=1.):
    return (scale * torch.randn(*shape)).float().double()


# The head: weight_norm(Linear) is gain * V / |V|.
x = normal(ROWS, D).requires_grad_()
flat = [normal(HIDDEN, D, scale=.5), normal(HIDDEN, scale=.5), normal(HIDDEN, HIDDEN, scale=.5),
        normal(HIDDEN, scale=.5), normal(DIM, HIDDEN, scale=.5), normal(DIM, scale=.5), normal(K, DIM)]
for t in flat:
    t.requires_grad_()
last = torch.nn.utils.weight_norm(torch.nn.Linear(DIM, K, bias=False))
last.weight_v.data.copy_(flat[6].detach())
last.weight_g.data.copy_(1 + .3 * normal(K, 1))
last.weight_g.data.copy_(last.weight_g.data.float().double())
h = F.gelu(F.linear(x, flat[0], flat[1]))
h = F.gelu(F.linear(h, flat[2], flat[3]))
o = last(F.normalize(F.linear(h, flat[4], flat[5]), dim=1))
asked = normal(ROWS, K)
(o * asked).sum().backward()
arrays = [x.detach(), *(t.detach() for t in flat[:6]), last.weight_v.detach(), last.weight_g.detach(),
          o.detach(), asked, x.grad, *(t.grad for t in flat[:6]), last.weight_v.grad,
          last.weight_g.grad]

# A teacher's targets and centre.
raw, centre = normal(2, BATCH, K), normal(K, scale=.3)
t = F.softmax((raw - centre) / .05, dim=-1)
moved = centre * .9 + raw.reshape(-1, K).mean(0) * .1
arrays += [raw, centre, t, moved]
# The loss is tested against targets as the other program reads them.
t = t.float().double()

# L1: each target against the student's other views.
s = normal(VIEWS, BATCH, K).requires_grad_()
total, n_terms = 0, 1
for q in range(2):
    for v in range(VIEWS):
        if v != q:
            total = total + (-t[q] * F.log_softmax(s[v] / .1, -1)).sum(-1).mean()
            n_terms += 1
loss = total / n_terms
loss.backward()
arrays += [s.detach(), loss.detach(), s.grad]

# L3: tokens of both large views, of which some samples have none masked.
patches, p = normal(2, BATCH, 6, K), F.softmax(normal(2, BATCH, 6, K) / .2, -1).float().double()
patches.requires_grad_()
mask = torch.zeros(2, BATCH, 6)
for sample, n in enumerate([2, 0, 3, 1, 0, 0, 4, 0, 2, 1]):
    mask[sample // BATCH, sample % BATCH, :n] = 1
assert mask.sum() == MASKED
total, n_terms = 0, 1
for v in range(2):
    one = (-p[v] * F.log_softmax(patches[v] / .1, -1)).sum(-1)
    one = (one * mask[v]).sum(-1) / mask[v].sum(-1).clamp(min=1)
    total = total + one.mean()
    n_terms += 1
loss = total / n_terms
loss.backward()
chosen = mask.bool()
rows = torch.arange(2 * BATCH).reshape(2, BATCH, 1).expand(2, BATCH, 6)[chosen]
assert patches.grad[~chosen].abs().max() == 0
arrays += [rows, patches.detach()[chosen], p[chosen], loss.detach(), patches.grad[chosen]]

# L4: the mask over the whole image, divided by a fixed share.
image, predicted = normal(PIXELS_ALL), normal(PIXELS_ALL).requires_grad_()
mask = (torch.arange(PIXELS_ALL) < PIXELS).double()
loss = (mask * (predicted - image)**2).mean() / .75
loss.backward()
arrays += [predicted.detach()[:PIXELS], image[:PIXELS], loss.detach(), predicted.grad[:PIXELS]]

# L2: the nearest other sample by the teacher's raw outputs.
s = normal(2, BATCH, K).requires_grad_()
total, n_terms, nearest = 0, 1, []
for q in range(2):
    unit = F.normalize(raw[q], dim=-1)
    near = unit @ unit.t()
    near.fill_diagonal_(-2)
    j = near.argmax(1)
    nearest.append(j)
    for v in range(2):
        cosine = (F.normalize(t[q], dim=-1) * F.normalize(s[v][j], dim=-1)).sum(-1)
        total = total + F.binary_cross_entropy_with_logits(cosine, torch.ones(BATCH))
        n_terms += 1
loss = total / n_terms
loss.backward()
arrays += [s.detach(), torch.stack(nearest), loss.detach(), s.grad]
write("micm.f32", *(a.numpy() for a in arrays))
