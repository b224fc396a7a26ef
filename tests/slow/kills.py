# SPDX-License-Identifier: Apache-2.0
"""A thousand kills, fifty a daemon: kills.py [--kills N]. Resumable; each piece's seed is printed."""

import argparse
import os
import sys

import chunks

PIECE = 50


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    n = parser.parse_args(os.environ.get("KAMEN_OPTIONS", "").split() + sys.argv[1:]).kills
    first = int(os.environ.get("KAMEN_SEED", "1000"))
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../proc/kills.py")
    pieces = {f"seed-{seed}": ([sys.executable, "-B", script],
                               {"KAMEN_SEED": str(seed), "KAMEN_KILLS": str(PIECE),
                                "KAMEN_SAYS": f"seed {seed}:"})
              for seed in range(first, first + (n + PIECE - 1) // PIECE)}
    return chunks.run("kills", pieces, int(os.environ.get("KAMEN_JOBS", "4")))


if __name__ == "__main__":
    sys.exit(main())
