# SPDX-License-Identifier: Apache-2.0
"""A hundred restarts each way under load: restart.py [--restarts N]. Prints what clients lost or got
twice, and for how long they were without answers."""

import argparse
import os
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--restarts", type=int, default=100)
    n = parser.parse_args(os.environ.get("KAMEN_OPTIONS", "").split() + sys.argv[1:]).restarts
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../proc/restart.py")
    done = subprocess.run([sys.executable, "-B", "-W", "ignore", script, "-k", "under_load"],
                          env=dict(os.environ, KAMEN_RESTARTS=str(n)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
