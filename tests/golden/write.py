# SPDX-License-Identifier: Apache-2.0
"""Writes arrays as one little-endian float32 file beside the scripts: what golden.h reads."""
import os
import numpy as np


def write(name, *arrays):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays]).astype("<f4").tofile(path)
    print(name, os.path.getsize(path), "bytes")
