#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Golden tensors of pooled features, by PyTorch in double precision.

  vit_small_pooled_golden.safetensors  of the ViT in vit_small.safetensors (make_goldens.py), frozen
                                       and masked: all tokens after the last norm, and the feature
                                       of algorithms.md 4.5, [L2(class), L2(sum_p a_p x_p)]

Run with /usr/bin/python3 (Debian: apt-get install python3-torch). Pixels and mask are those of
make_goldens.py, its forward is not: this one keeps what the last block looks at.
"""
import os

import torch
import torch.nn.functional as F

from make_goldens import BATCH, DEPTH, HEADS, HERE, LAYERS, PX, kept, pixels, positions, read, write


def tokens_and_feature(p, x):
    n, w = x.shape[0], p["patch_embed.proj.weight"]
    width = w.shape[0]
    t = F.conv2d(x, w, p["patch_embed.proj.bias"], stride=w.shape[2])
    c, r = positions(p, t.shape[-1])
    t = torch.cat([(p["cls_token"] + c).expand(n, -1, -1), t.flatten(2).transpose(1, 2) + r], 1)
    for i in range(DEPTH):
        def norm(name):
            return F.layer_norm(t, (width,), p[b + name + ".weight"], p[b + name + ".bias"], 1e-6)

        def linear(name, y):
            return F.linear(y, p[b + name + ".weight"], p[b + name + ".bias"])

        b = "blocks.%d." % i
        qkv = linear("attn.qkv", norm("norm1")).reshape(n, -1, 3, HEADS, width // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = torch.softmax(q @ k.transpose(-1, -2) * (width // HEADS) ** -.5, -1)
        t = t + linear("attn.proj", (attention @ v).transpose(1, 2).reshape(n, -1, width))
        t = t + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2"))))
    t = F.layer_norm(t, (width,), p["norm.weight"], p["norm.bias"], 1e-6)
    a = attention[:, :, 0, 1:].mean(1)
    a = a / a.sum(1, keepdim=True)
    pooled = (a[:, :, None] * t[:, 1:]).sum(1)
    return t, torch.cat([F.normalize(t[:, 0], dim=1), F.normalize(pooled, dim=1)], 1)


def main():
    frozen = read(os.path.join(HERE, "vit_small.safetensors"))
    masked = dict(frozen)
    names = ["blocks.%d.%s.%s" % (b, n, p) for b in range(DEPTH) for n in LAYERS for p in ("weight", "bias")]
    for i, name in enumerate(names):
        m = kept(i, frozen[name].numel()).reshape(frozen[name].shape).double()
        masked[name] = frozen[name] * m / torch.sqrt(m.mean())
    out = {}
    for name, p in (("frozen", frozen), ("masked", masked)):
        t, feature = tokens_and_feature(p, pixels(BATCH, PX))
        out[name + ".tokens"] = ("F32", t)
        out[name + ".feature"] = ("F32", feature)
    write(os.path.join(HERE, "vit_small_pooled_golden.safetensors"), out, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
