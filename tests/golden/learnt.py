# SPDX-License-Identifier: Apache-2.0
"""Writes learnt_vit.f32, learnt_late.f32, learnt_kept.f32 and learnt_decoder.f32 with PyTorch: a small ViT, one whose class
token enters behind the first of two blocks, the same of some of the patches, and a small decoder of two trunks; what they give, and the gradients of a weighted sum of it
with respect to all values, in the order of vit_params.c and vit_decoder.c.
Run: python3 tests/golden/learnt.py"""
import numpy as np
import torch
import torch.nn.functional as F
from sincos import grid_positions
from write import write

torch.manual_seed(3)
torch.set_default_dtype(torch.float64)


class Values:
    """Named leaves in the order in which they are asked for, exact in float32."""

    def __init__(self):
        self.leaves = {}

    def make(self, name, *dims, around=0.):
        self.leaves[name] = (around + .3 * torch.randn(*dims)).float().double().requires_grad_()

    def linear(self, name, n_out, n_in):
        self.make(name + ".weight", n_out, n_in)
        self.make(name + ".bias", n_out)

    def norm(self, name, n):
        self.make(name + ".weight", n, around=1.)
        self.make(name + ".bias", n)

    def blocks(self, prefix, width, depth, mlp):
        for b in range(depth):
            self.linear(f"{prefix}blocks.{b}.attn.qkv", 3 * width, width)
            self.linear(f"{prefix}blocks.{b}.attn.proj", width, width)
            self.linear(f"{prefix}blocks.{b}.mlp.fc1", mlp, width)
            self.linear(f"{prefix}blocks.{b}.mlp.fc2", width, mlp)
        for b in range(depth):
            self.norm(f"{prefix}blocks.{b}.norm1", width)
            self.norm(f"{prefix}blocks.{b}.norm2", width)
        self.norm(prefix + "norm", width)

    def __getitem__(self, name):
        return self.leaves[name]

    def flat(self, what=lambda t: t):
        return np.concatenate([what(t).detach().numpy().ravel() for t in self.leaves.values()])


def layer(v, name, x):
    return x @ v[name + ".weight"].T + v[name + ".bias"]


def norm(v, name, x):
    return F.layer_norm(x, x.shape[-1:], v[name + ".weight"], v[name + ".bias"], 1e-6)


def run_some(v, prefix, x, blocks, heads):
    n, t, width = x.shape
    for b in blocks:
        p = f"{prefix}blocks.{b}."
        q, k, w = layer(v, p + "attn.qkv", norm(v, p + "norm1", x)).reshape(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-1, -2) / (width // heads) ** .5).softmax(-1) @ w
        x = x + layer(v, p + "attn.proj", a.transpose(1, 2).reshape(n, t, width))
        x = x + layer(v, p + "mlp.fc2", F.gelu(layer(v, p + "mlp.fc1", norm(v, p + "norm2", x))))
    return x


def run_blocks(v, prefix, x, depth, heads):
    return norm(v, prefix + "norm", run_some(v, prefix, x, range(depth), heads))


def vit(name, class_block, kept=None):
    width, depth, heads, mlp, patch, grid, n = 8, 2, 2, 12, 4, 3, 2
    v = Values()
    v.blocks("", width, depth, mlp)
    v.make("cls_token", 1, 1, width)
    v.make("pos_embed", 1, 1 + grid * grid, width)
    if class_block:
        v.make("pos_embed_class", 1, 1 + grid * grid, width)
    v.make("patch_embed.proj.weight", width, 3, patch, patch)
    v.make("patch_embed.proj.bias", width)
    pixels = torch.randn(n, 3, grid * patch, grid * patch).float().double()
    places = torch.tensor(kept or [list(range(grid * grid))] * n)
    weight = torch.randn(n, 1 + places.shape[1], width).float().double()
    x = F.conv2d(pixels, v["patch_embed.proj.weight"], v["patch_embed.proj.bias"], stride=patch).flatten(2).transpose(1, 2)
    x = torch.stack([image[rows] for image, rows in zip(x, places)])
    if class_block:
        x = run_some(v, "", x + v["pos_embed"][0, 1 + places], range(class_block), heads)
    table = v["pos_embed_class" if class_block else "pos_embed"][0]
    x = torch.cat([(v["cls_token"][0] + table[:1]).expand(n, 1, width), x + table[1 + places]], 1)
    out = norm(v, "norm", run_some(v, "", x, range(class_block, depth), heads))
    (out * weight).sum().backward()
    write(name, v.flat(), pixels, weight, out.detach(), v.flat(lambda t: t.grad))


def decoder():
    n_in, width, depth, heads, mlp, grid, n_out, n = 6, 8, 2, 2, 12, 3, 5, 2
    kept = [[7, 0, 4, 2], [1, 8, 3, 5]]
    v = Values()
    v.linear("entry", width, n_in)
    v.make("mask_token", width)
    for t in range(2):
        v.blocks(f"trunk{t}.", width, depth, mlp)
        v.linear(f"exit{t}", n_out, width)
    tokens = torch.randn(n, 5, n_in).float().double().requires_grad_()
    weight = torch.randn(2, n, grid * grid, n_out).float().double()
    entered = layer(v, "entry", tokens)
    rows = []
    for i in range(n):
        at = {p: entered[i, 1 + k] for k, p in enumerate(kept[i])}
        rows.append(torch.stack([entered[i, 0]] + [at.get(p, v["mask_token"]) for p in range(grid * grid)]))
    x = torch.stack(rows) + torch.from_numpy(np.concatenate([np.zeros((1, width)), grid_positions(width, grid)]))
    out = torch.stack([layer(v, f"exit{t}", run_blocks(v, f"trunk{t}.", x, depth, heads)[:, 1:]) for t in range(2)])
    (out * weight).sum().backward()
    write("learnt_decoder.f32", v.flat(), tokens.detach(), weight, out.detach(), v.flat(lambda t: t.grad), tokens.grad)


vit("learnt_vit.f32", 0)
decoder()
vit("learnt_late.f32", 1)
vit("learnt_kept.f32", 1, [[7, 0, 4, 2], [1, 8, 3, 5]])
