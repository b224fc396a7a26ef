# SPDX-License-Identifier: Apache-2.0
"""Writes patch_loss.f32 with PyTorch: patches of an image, raw and normalised; reconstruction of pixels
and of features; pairwise and absolute loss prediction; each with its gradient. A tie within an image,
and an image of ties only, are among the losses. Run: python3 tests/golden/patch_loss.py"""
import torch
import torch.nn.functional as F
from write import write

PX, PATCH, N, DIM, IMAGES, MASKED = 12, 4, 10, 6, 4, 7
torch.manual_seed(5)
torch.set_default_dtype(torch.float64)


def values(*shape):
    return torch.randn(*shape).float().double()


pixels = values(3, PX, PX)
g = PX // PATCH
cut = torch.einsum("chpwq->hwpqc", pixels.reshape(3, g, PATCH, g, PATCH)).reshape(g * g, -1)
normalised = (cut - cut.mean(1, keepdim=True)) / (cut.var(1, keepdim=True) + 1e-6)**.5

predicted, target = values(N, DIM).requires_grad_(), values(N, DIM)
losses = ((predicted - target)**2).mean(1)
losses.mean().backward()
d_pixels = predicted.grad.clone()
predicted.grad = None
distances = ((F.normalize(predicted, dim=1) - F.normalize(target, dim=1))**2).sum(1)
distances.mean().backward()
d_features = predicted.grad.clone()

p, l = values(IMAGES, MASKED).requires_grad_(), values(IMAGES, MASKED)**2
l[1, 3] = l[1, 5]
l[2] = .25
s = p[:, None, :] - p[:, :, None]  # s_ij = p_j - p_i
y = (l[:, None, :] > l[:, :, None]).double()
valid = l[:, None, :] != l[:, :, None]
terms = y * torch.log(torch.sigmoid(s) + 1e-6) + (1 - y) * torch.log(1 - torch.sigmoid(s) + 1e-6)
rank = -terms[valid].sum() / valid.sum()
rank.backward()
d_rank = p.grad.clone()
p.grad = None
z = (l - l.mean(1, keepdim=True)) / (l.var(1, keepdim=True) + 1e-6)**.5
score = ((p - z)**2).mean()
score.backward()
write("patch_loss.f32", *(t.detach().numpy() for t in (
    pixels, cut, normalised, predicted, target, losses, d_pixels, distances, d_features, p, l)),
      [rank.item()], d_rank.numpy(), [score.item()], p.grad.numpy())
