# SPDX-License-Identifier: Apache-2.0
"""Writes sincos.f32: MAE's fixed positions, width 24, grid 4, with the class token's row of zeros.
Run: python3 tests/golden/sincos.py"""
import numpy as np
from write import write


def waves(n, at):
    angles = np.outer(at, 1 / 10000 ** (np.arange(n // 2) / (n / 2)))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def grid_positions(width, grid):
    columns, rows = np.meshgrid(np.arange(grid), np.arange(grid))
    return np.concatenate([waves(width // 2, columns.ravel()), waves(width // 2, rows.ravel())], axis=1)


if __name__ == "__main__":
    write("sincos.f32", np.zeros(24), grid_positions(24, 4))
