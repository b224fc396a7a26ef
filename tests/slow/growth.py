# SPDX-License-Identifier: Apache-2.0
"""A thousand sites come and go, a thousand promotions and rollbacks: nothing grows by it."""

import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../proc"))

import harness
import watch
from evidence import Evidence, database
from flow import let_pass

MB = 1 << 20
# What an allocator may keep that nothing is lost by.
SLACK_BYTES, SLACK_FDS = 4 * MB, 2


def grow(daemon, what, n, act):
    """The second half must not need more than the first."""
    samples = []
    for i in range(n):
        act(i)
        if (i + 1) % (n // 4) == 0:
            samples.append(watch.of_daemon(daemon))
            print(f"{what} {i + 1}: " + ", ".join(
                f"{name} {rss / MB:.1f} MB {fds} fds" for name, (rss, fds) in samples[-1].items()),
                flush=True)
    wrong = []
    for name, (rss, fds) in samples[-1].items():
        rss_before, fds_before = samples[1][name]
        if rss > rss_before + SLACK_BYTES or fds > fds_before + SLACK_FDS:
            wrong.append(f"{what}: {name} grew from {rss_before} to {rss} bytes, "
                         f"{fds_before} to {fds} descriptors")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=1000)
    n = parser.parse_args(os.environ.get("KAMEN_OPTIONS", "").split() + sys.argv[1:]).changes
    daemon = harness.Daemon("[site]\npolicy = manual\nrecipe = score_lr=.07\n")
    try:
        daemon.start()
        images, few = daemon.path("images"), daemon.path("few")
        for folder, n_images in ((images, 64), (few, 2)):
            os.makedirs(folder)
            harness.fixture("images", folder, 0, n_images)
        daemon.ctl("site", "create", "a")
        daemon.ctl("push", "a", images)
        daemon.ctl("learn", "a", "--steps", "60", "--wait")
        if daemon.one("mask", "show", "a", "1")["state"] == "held":
            let_pass(daemon, "a", 1)
        probe = os.path.join(images, "00000.png")

        def come_and_go(i):
            daemon.ctl("site", "create", f"s{i}")
            daemon.ctl("push", f"s{i}", few)
            daemon.ctl("site", "delete", f"s{i}", "--yes")

        def back_and_forth(i):
            daemon.ctl("mask", "promote", "a", "1")
            assert daemon.one("infer", "a", probe)["mask"] == 1
            daemon.ctl("mask", "rollback", "a")

        wrong = grow(daemon, "sites", n, come_and_go)
        wrong += grow(daemon, "promotions and rollbacks", n, back_and_forth)
        harness.wait_until(lambda: os.listdir(daemon.path("state/sites")) == ["a"],
                           "the deleted sites' files go")
        daemon.stop()
        evidence = Evidence(daemon.path("state"))
        with database(evidence.state) as db:
            evidence.check(db)
            evidence.check_stopped(db)
        print(f"{len(evidence.chain)} rows of audit", flush=True)
    finally:
        daemon.close()
    for line in wrong:
        print("wrong:", line, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
