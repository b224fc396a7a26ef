# SPDX-License-Identifier: Apache-2.0
"""A long stage in pieces: a piece that passed at this commit is not run again."""

import concurrent.futures
import os
import subprocess
import sys


def commit():
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True,
                          cwd=os.path.dirname(os.path.abspath(__file__)))
    return done.stdout.strip() or "unknown"


def run_piece(stamp, command, env):
    """The last line that a piece said, or None and all of it on stderr."""
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            return file.read().strip() + " (before)"
    done = subprocess.run(command, env=dict(os.environ, **env), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr, flush=True)
        return None
    said = [line for line in done.stdout.splitlines() if line.startswith(env["KAMEN_SAYS"])]
    with open(stamp, "w", encoding="utf-8") as file:
        file.write(said[-1] + "\n")
    return said[-1]


def run(stage, pieces, jobs):
    """pieces: name -> (command, environment with KAMEN_SAYS, how the line begins that sums up).
    @return exit status"""
    folder = os.path.join(os.environ["KAMEN_STAMPS"], commit(), stage)
    os.makedirs(folder, exist_ok=True)
    n_failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_piece, os.path.join(folder, name), command, env): name
                   for name, (command, env) in pieces.items()}
        for piece in concurrent.futures.as_completed(waiting):
            said = piece.result()
            n_failed += said is None
            print(f"{waiting[piece]}: {said or 'failed'}", flush=True)
    print(f"{stage}: {len(pieces) - n_failed} of {len(pieces)} pieces passed", flush=True)
    return 1 if n_failed else 0
