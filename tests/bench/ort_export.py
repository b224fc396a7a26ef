# SPDX-License-Identifier: Apache-2.0
"""A ViT's safetensors file as ONNX, in f32, and random pixels for it: ort_export.py MODEL ONNX PIXELS
[--batch 1]. The network is written out here as its authors draw it; what may be fused is the runtime's
business. Prints the side of its input."""
import argparse, json, struct
import torch
import torch.nn.functional as F

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("onnx")
ap.add_argument("pixels")
ap.add_argument("--batch", type=int, default=1)
a = ap.parse_args()
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def tensors_of(path):
    data = bytearray(open(path, "rb").read())
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    metadata = header.pop("__metadata__", {})
    body = memoryview(data)[8 + n:]
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        tensors[name] = torch.frombuffer(body[begin:end], dtype=TYPES[t["dtype"]]).reshape(t["shape"]).float()
    return tensors, metadata


class ViT(torch.nn.Module):
    def __init__(self, w, heads, patch):
        super().__init__()
        self.names = {n: n.replace(".", "_") for n in w if not n.startswith("head.")}
        for name, plain in self.names.items():
            self.register_buffer(plain, w[name].clone())
        self.heads, self.patch = heads, patch
        self.depth = 1 + max(int(n.split(".")[1]) for n in w if n.startswith("blocks."))

    def get(self, name):
        return getattr(self, self.names[name])

    def linear(self, name, x):
        return F.linear(x, self.get(name + ".weight"), self.get(name + ".bias"))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.get(name + ".weight"), self.get(name + ".bias"), 1e-6)

    def attention(self, name, x):
        n, t, d = map(int, x.shape)  # constants of the graph
        q, k, v = self.linear(name + ".qkv", x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        p = torch.softmax(q @ k.transpose(-2, -1) * (d // self.heads)**-.5, -1)
        return self.linear(name + ".proj", (p @ v).transpose(1, 2).reshape(n, t, d))

    def forward(self, pixels):
        x = F.conv2d(pixels, self.get("patch_embed.proj.weight"), self.get("patch_embed.proj.bias"), stride=self.patch)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.get("cls_token").expand(int(x.shape[0]), -1, -1), x], 1) + self.get("pos_embed")
        for i in range(self.depth):
            block = f"blocks.{i}."
            x = x + self.attention(block + "attn", self.norm(block + "norm1", x))
            y = F.gelu(self.linear(block + "mlp.fc1", self.norm(block + "norm2", x)))
            x = x + self.linear(block + "mlp.fc2", y)
        return self.norm("norm", x)[:, 0]


w, metadata = tensors_of(a.model)
width, _, patch, _ = w["patch_embed.proj.weight"].shape
px = round((w["pos_embed"].shape[1] - 1)**.5) * patch
net = ViT(w, int(metadata.get("num_heads", max(1, width // 64))), patch).eval()
torch.manual_seed(1)
pixels = torch.rand(a.batch, 3, px, px) * 2 - 1
pixels.numpy().tofile(a.pixels)
with torch.no_grad():
    torch.onnx.export(net, pixels, a.onnx, opset_version=16, input_names=["pixels"], output_names=["embeddings"])
print(px)
