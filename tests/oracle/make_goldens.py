#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Golden tensors for the oracle tests, by PyTorch in double precision.

  vit_small.safetensors         a seeded untrained ViT of an unusual shape, in f16, bf16 and f32
  vit_small_golden.safetensors  its embeddings, frozen and masked, and dL/dS of every score
  vit_tiny_golden.safetensors   embeddings of the pretrained ViT-Tiny at 112 and 224 px, where
                                $KAMEN_SHARED (or ../shared beside the checkout) has it

Debian: apt-get install python3-torch; run with /usr/bin/python3. Pixels, masks and the loss's
weights follow integer formulas that the tests repeat, so that they need not be stored.
"""
import json
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.environ.get("KAMEN_SHARED", os.path.join(HERE, "../../../shared"))
WIDTH, DEPTH, HEADS, MLP, PATCH, GRID, PX, BATCH = 40, 2, 5, 100, 14, 5, 98, 2
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def hashed(n, salt):
    """(i + salt) * 2654435761 mod 2^32 >> 16, for i < n"""
    i = np.arange(n, dtype=np.uint64) + np.uint64(salt)
    return ((i * np.uint64(2654435761)) % np.uint64(1 << 32)) >> np.uint64(16)


def pixels(n, px):
    v = (hashed(n * 3 * px * px, 1) % np.uint64(256)).astype(np.float64) / 128 - 1
    return torch.from_numpy(v.reshape(n, 3, px, px))


def loss_weights(n):
    return torch.from_numpy((hashed(n, 2) % np.uint64(256)).astype(np.float64) / 128 - 1)


def kept(tensor, n):
    """One weight in eight is dropped, elsewhere in every tensor."""
    return torch.from_numpy(hashed(n, 1000 * (tensor + 1)) % np.uint64(8) != 0)


def write(path, tensors, metadata):
    header, body, at = {"__metadata__": metadata}, b"", 0
    for name, (dtype, t) in tensors.items():
        if dtype == "BF16":
            raw = t.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
        else:
            raw = t.to({"F16": torch.float16, "F32": torch.float32}[dtype]).numpy().tobytes()
        header[name] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        body += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)


def read(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        s, e = t["data_offsets"]
        data = bytearray(raw[8 + n + s:8 + n + e])
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[t["dtype"]]
        out[name] = torch.frombuffer(data, dtype=dtype).reshape(t["shape"]).double()
    return out


def positions(p, grid):
    c, r = p["pos_embed"][:, :1], p["pos_embed"][:, 1:]
    native, width = int(round(r.shape[1] ** .5)), r.shape[2]
    if grid != native:
        r = r.reshape(1, native, native, width).permute(0, 3, 1, 2)
        r = F.interpolate(r, size=(grid, grid), mode="bicubic", align_corners=False)
        r = r.permute(0, 2, 3, 1).reshape(1, grid * grid, width)
    return c, r


def forward(p, x, heads, depth):
    n = x.shape[0]
    w = p["patch_embed.proj.weight"]
    width = w.shape[0]
    t = F.conv2d(x, w, p["patch_embed.proj.bias"], stride=w.shape[2])
    c, r = positions(p, t.shape[-1])
    t = torch.cat([(p["cls_token"] + c).expand(n, -1, -1), t.flatten(2).transpose(1, 2) + r], 1)

    def norm(name, t):
        return F.layer_norm(t, (width,), p[name + ".weight"], p[name + ".bias"], 1e-6)

    def linear(name, t):
        return F.linear(t, p[name + ".weight"], p[name + ".bias"])

    for i in range(depth):
        b = "blocks.%d." % i
        y = linear(b + "attn.qkv", norm(b + "norm1", t))
        q, k, v = y.reshape(n, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-1, -2) * (width // heads) ** -.5, -1) @ v
        t = t + linear(b + "attn.proj", y.transpose(1, 2).reshape(n, -1, width))
        y = F.gelu(linear(b + "mlp.fc1", norm(b + "norm2", t)))
        t = t + linear(b + "mlp.fc2", y)
    return norm("norm", t)[:, 0]


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s):
        return (s > 0).to(s.dtype)

    @staticmethod
    def backward(ctx, g):
        return g


def small_model():
    g = torch.Generator().manual_seed(20240911)

    def normal(*shape, mean=0., std=1.):
        return mean + std * torch.randn(*shape, generator=g)

    m = {
        "cls_token": ("F32", normal(1, 1, WIDTH, std=.5)),
        "pos_embed": ("F16", normal(1, 1 + GRID * GRID, WIDTH, std=.5)),
        "patch_embed.proj.weight": ("F16", normal(WIDTH, 3, PATCH, PATCH, std=.06)),
        "patch_embed.proj.bias": ("BF16", normal(WIDTH, std=.1)),
    }
    for b in range(DEPTH):
        for name, (o, i) in zip(LAYERS, ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (MLP, WIDTH), (WIDTH, MLP))):
            m["blocks.%d.%s.weight" % (b, name)] = ("F16", normal(o, i, std=1.5 * i ** -.5))
            m["blocks.%d.%s.bias" % (b, name)] = ("BF16", normal(o, std=.2))
        for name in ("norm1", "norm2"):
            m["blocks.%d.%s.weight" % (b, name)] = ("BF16", normal(WIDTH, mean=1., std=.2))
            m["blocks.%d.%s.bias" % (b, name)] = ("BF16", normal(WIDTH, std=.2))
    m["norm.weight"] = ("F32", normal(WIDTH, mean=1., std=.2))
    m["norm.bias"] = ("F32", normal(WIDTH, std=.2))
    return m


def small():
    path = os.path.join(HERE, "vit_small.safetensors")
    write(path, small_model(), {"num_heads": str(HEADS)})
    w = read(path)
    x = pixels(BATCH, PX)
    out = {"frozen": ("F32", forward(w, x, HEADS, DEPTH))}

    masked, scores = dict(w), {}
    names = ["blocks.%d.%s.%s" % (b, n, p) for b in range(DEPTH) for n in LAYERS for p in ("weight", "bias")]
    for t, name in enumerate(names):
        keep = kept(t, w[name].numel()).reshape(w[name].shape)
        scores[name] = (keep.double() * 2 - 1).requires_grad_()
        m = StraightThrough.apply(scores[name])
        masked[name] = w[name] * m / torch.sqrt(m.mean())
    f = forward(masked, x, HEADS, DEPTH)
    (f.flatten() * loss_weights(f.numel())).sum().backward()
    out["masked"] = ("F32", f.detach())
    for name in names:
        out[name] = ("F32", scores[name].grad)
    write(os.path.join(HERE, "vit_small_golden.safetensors"), out, {"torch": torch.__version__})


def tiny():
    folder = os.path.join(SHARED, "models/vit_tiny_patch16_224")
    if not os.path.exists(folder):
        print("no", folder)
        return
    w = read(os.path.join(folder, "model.safetensors"))
    x = torch.from_numpy(np.fromfile(os.path.join(folder, "ref_in.f32"), np.float32)).double()
    x = x.reshape(1, 3, 224, 224)
    write(os.path.join(HERE, "vit_tiny_golden.safetensors"), {
        "px224": ("F32", forward(w, x, 3, 12)),
        "px112": ("F32", forward(w, x[:, :, ::2, ::2].contiguous(), 3, 12)),
    }, {"torch": torch.__version__})


if __name__ == "__main__":
    small()
    tiny()
