#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Golden of tests/unit/augment.c, by torchvision 0.14 on float tensors (Debian 12: python3-torch,
python3-torchvision): augment.bin, records of u32 step, f32 amount, f32 (3, 17, 17) result; the source
is made by the formula of source(). Steps: 0 brightness, 1 contrast, 2 saturation, 3 hue, 4 grey, 5 blur
with 5 taps, 6 blur with 9 taps."""
import os, struct
import torch
import torchvision.transforms.functional as F

PX = 17


def source():
    """The twin of fill_source() in augment.c."""
    state, out = 2024, torch.zeros(3 * PX * PX)
    for i in range(3 * PX * PX):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = (state >> 24) / 255.
    out = out.view(3, PX, PX)
    out[:, 0] = out[:1, 0]      # a row of greys,
    out[:, 1] = 0.              # one of black
    out[:, 2] = 1.              # and one of white
    out[1, 3] = out[0, 3]       # two channels alike
    return out


def steps(x):
    for factor in (.2, 1., 1.8):
        yield 0, factor, F.adjust_brightness(x, factor)
        yield 1, factor, F.adjust_contrast(x, factor)
        yield 2, factor, F.adjust_saturation(x, factor)
    for shift in (-.5, -.2, -.01, 0., .07, .2, .5):
        yield 3, shift, F.adjust_hue(x, shift)
    yield 4, 0., F.rgb_to_grayscale(x, 3)
    for sigma in (.1, .7, 2.):
        yield 5, sigma, F.gaussian_blur(x, [5, 5], [sigma, sigma])
        yield 6, sigma, F.gaussian_blur(x, [9, 9], [sigma, sigma])


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "augment.bin"), "wb") as f:
    for step, amount, result in steps(source()):
        f.write(struct.pack("<If", step, amount) + result.contiguous().numpy().astype("<f4").tobytes())
