# SPDX-License-Identifier: Apache-2.0
"""A hundred sites, fed and learning in turn: hundred.py [--seconds N] [--sites N].

Memory, descriptors and disk stay where they are meant to, and every site gets its rounds."""

import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../proc"))

import harness
import watch
from evidence import Evidence, database

REPLAY_BYTES = 1 << 20
N_FOLDERS, N_IMAGES = 20, 20
CONFIG = f"""[learner]
cpu = 100
threads = 1
[serve]
threads = 1
[site]
input_px = 32
replay_bytes = {REPLAY_BYTES}
learn_steps = 60
recipe = score_lr=.07
"""
MB = 1 << 20


class Hundred:
    def __init__(self, daemon, n_sites, seconds):
        self.daemon, self.seconds = daemon, seconds
        self.sites = [f"site{i:03}" for i in range(n_sites)]
        self.folders = []
        self.samples = []
        self.over = 0
        for i in range(N_FOLDERS):
            folder = daemon.path(f"images-{i}")
            os.makedirs(folder)
            harness.fixture("images", folder, 1000 * i, N_IMAGES)
            self.folders.append(folder)

    def feed(self, turn, i):
        """Twenty images for one site, and a round if it has none."""
        site = self.sites[i]
        self.daemon.ctl("push", site, self.folders[(turn + i) % N_FOLDERS])
        if turn >= 1:
            # One that runs or waits is no error of ours.
            self.daemon.command("learn", site, "--seed", turn)

    def rounds(self):
        """Site -> rounds that came to their end; none failed."""
        with database(self.daemon.path("state")) as db:
            assert not db.execute("SELECT 1 FROM version WHERE state = 'failed'").fetchone()
            done = dict(db.execute("SELECT site.name, count(*) FROM audit JOIN site ON "
                                   "site.name = audit.site WHERE what = 'round.end' GROUP BY 1"))
        return [done.get(site, 0) for site in self.sites]

    def sample(self, started):
        held = watch.of_daemon(self.daemon)
        state = self.daemon.path("state")
        rows = self.daemon.ctl("site", "list")
        replay = [watch.disk(os.path.join(state, "sites", row["site"], "replay")) for row in rows]
        rounds = self.rounds()
        row = {"s": time.monotonic() - started, "images": sum(row["images"] for row in rows),
               "rounds": sum(rounds), "replay_max": max(replay), "held": held,
               "disk": watch.disk(state), "db": os.path.getsize(os.path.join(state, "state.db"))}
        self.samples.append(row)
        roles = "  ".join(f"{held[name][0] / MB:6.1f} {held[name][1]:4}"
                          if name in held else "     -    -"
                          for name in ("serve", "ingest", "learner"))
        print(f"{row['s']:6.0f} {row['images']:7} {row['rounds']:7} {max(replay) / MB:7.2f}"
              f" {row['disk'] / MB:7.1f} {row['db'] / MB:6.1f}  {roles}", flush=True)

    def run(self):
        for site in self.sites:
            self.daemon.ctl("site", "create", site)
        print("     s  images  rounds  replay    disk     db   serve MB fds  ingest MB fds"
              "  learner MB fds", flush=True)
        started = time.monotonic()
        next_sample, turn = 0, 0
        while time.monotonic() - started < self.seconds:
            for i in range(len(self.sites)):
                if time.monotonic() - started >= next_sample:
                    self.sample(started)
                    next_sample += max(self.seconds / 12, 1)
                if time.monotonic() - started >= self.seconds:
                    break
                self.feed(turn, i)
            turn += 1
        self.drain()
        self.sample(started)

    def drain(self):
        """A hundred rounds may wait: as long as one ends now and then, they will all."""
        left = None
        while left != 0:
            before = left

            def some_ended():
                nonlocal left
                left = sum(row["state"] == "learning" for row in self.daemon.ctl("site", "list"))
                return left == 0 or before is None or left < before
            harness.wait_until(some_ended, f"one of {before} rounds ends", 120)

    def judge(self):
        """@return what is wrong"""
        wrong = []
        rounds = self.rounds()
        print(f"rounds of a site: least {min(rounds)}, median {statistics.median(rounds):g}, most "
              f"{max(rounds)}, deviation {statistics.pstdev(rounds):.2f}", flush=True)
        if min(rounds) < max(1, statistics.median(rounds) / 2):
            wrong.append("a site starves")
        first, last = self.samples[len(self.samples) // 3], self.samples[-1]
        # What came while a round held the older images goes when it ends.
        if last["replay_max"] > REPLAY_BYTES:
            wrong.append(f"a replay store has {last['replay_max']} bytes")
        for name, (rss, fds) in last["held"].items():
            if name not in first["held"]:
                continue
            if fds > first["held"][name][1] + 8:
                wrong.append(f"{name} has {fds} descriptors, {first['held'][name][1]} before")
            if rss > first["held"][name][0] * 1.25 + 16 * MB:
                wrong.append(f"{name} has {rss} bytes, {first['held'][name][0]} before")
        return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--sites", type=int, default=100)
    options = parser.parse_args(os.environ.get("KAMEN_OPTIONS", "").split() + sys.argv[1:])
    daemon = harness.Daemon(CONFIG)
    try:
        daemon.start()
        hundred = Hundred(daemon, options.sites, options.seconds)
        hundred.run()
        wrong = hundred.judge()
        daemon.stop()
        evidence = Evidence(daemon.path("state"))
        with database(evidence.state) as db:
            evidence.check(db)
            evidence.check_stopped(db)
    finally:
        daemon.close()
    for line in wrong:
        print("wrong:", line, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
