# SPDX-License-Identifier: Apache-2.0
"""A tiny network, rendered images, and a recipe of seconds: for tests of what takes hours."""

import os
import random
import subprocess

PX, N_CLASSES, N_IMAGES = 48, 3, 60
MODEL = "models/vit_tiny_patch16_224/model.safetensors"
# Twenty steps of two small batches: as much as shows that bits flip and a checkpoint is kept.
OPTIONS = ["--px", "48", "--set", "batch=8", "--set", "large_px=48", "--set", "small_px=32",
           "--set", "queue=0", "--set", "steps=20"]

# Threads that spin while they wait make a loaded machine ten times slower.
os.environ["OMP_WAIT_POLICY"] = "passive"


def render(folder):
    """Stripes, one direction a class, in noise."""
    noise = random.Random(7)
    for c in range(N_CLASSES):
        os.makedirs(f"{folder}/class{c}")
        for i in range(N_IMAGES):
            phase = noise.randrange(12)
            pixels = bytes(
                min(max(128 + (60 if ((x * (c > 0) + y * (c < 2)) + phase) // 6 % 2 else -60)
                        + noise.randrange(-30, 31), 0), 255)
                for y in range(PX) for x in range(PX))
            with open(f"{folder}/class{c}/{i}.pgm", "wb") as file:
                file.write(b"P5 %d %d 255\n" % (PX, PX) + pixels)


def make_model(folder, random_model, seed):
    subprocess.run([random_model, "vit_demo", str(seed), f"{folder}/{MODEL}"], check=True)


def make(folder, random_model):
    """MODEL and images/ below the folder, which thereby looks as $KAMEN_SHARED does."""
    os.makedirs(os.path.dirname(f"{folder}/{MODEL}"))
    make_model(folder, random_model, 1)
    render(f"{folder}/images")
