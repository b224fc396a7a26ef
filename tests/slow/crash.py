# SPDX-License-Identifier: Apache-2.0
"""The power fails at every point: of a site's life in one process, and of a whole daemon's."""

import os
import sys

import chunks

PARTS = 8


def main():
    daemon = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../proc/crash.py")
    pieces = {"state": ([os.environ["KAMEN_CRASH_STATE"]],
                        {"KAMEN_CRASH_STRIDE": "1", "KAMEN_SAYS": "cut off"})}
    for part in range(1, PARTS + 1):
        pieces[f"daemon-{part}"] = ([sys.executable, "-B", daemon],
                                    {"KAMEN_PART": f"{part}/{PARTS}",
                                     "KAMEN_SAYS": f"part {part}/{PARTS}:"})
    return chunks.run("crash", pieces, int(os.environ.get("KAMEN_JOBS", "4")))


if __name__ == "__main__":
    sys.exit(main())
