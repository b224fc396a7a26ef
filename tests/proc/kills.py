# SPDX-License-Identifier: Apache-2.0
"""kill -9 of whoever it hits, again and again: no accepted image is lost, no file is torn.

KAMEN_SEED and KAMEN_KILLS say which and how many."""

import glob
import os
import random
import signal
import subprocess
import time
import unittest

import harness
from evidence import Evidence, database
from flow import let_pass
from harness import BIN, wait_until

N_KILLS = int(os.environ.get("KAMEN_KILLS", "15"))
VICTIMS = ("serve", "ingest", "learner", "client")


class Kamenctl:
    """A command in the background."""

    def __init__(self, daemon, *args):
        self.process = subprocess.Popen(
            [os.path.join(BIN, "kamenctl"), "--runtime", daemon.path("run"), *args],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self, kill=False):
        """Whether it said that it was done."""
        if kill:
            self.process.kill()
        return self.process.wait(harness.PATIENCE) == 0


class Kills(harness.Case):
    # Far enough for some bits to move: a round that moves none is given up.
    CONFIG = "[site]\nrecipe = score_lr=.07\n"

    def promise(self, folder):
        """Pushes one by one over a session of our own, and remembers what was accepted."""
        session = self.daemon.session()
        for path in sorted(glob.glob(os.path.join(folder, "*.png"))):
            with open(path, "rb") as file:
                data = file.read()
            answer = session.ask(0, harness.PUSH, data, site="a")
            if answer["code"] == 0 and answer["outcome"] in (0, 1):
                self.evidence.promise("a", data)
        session.close()

    def champion(self):
        return self.daemon.one("infer", "a", self.probe)["mask"]

    def kill_role(self, name, pid):
        """What was killed in the strike before may take its time to end, on a busy machine."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            wait_until(lambda: self.daemon.role(name) != pid, f"another {name} runs")
            os.kill(self.daemon.role(name), signal.SIGKILL)

    def strike(self, victim, dice):
        daemon = self.daemon
        folder = self.images(100000 + 100 * self.round, 12)
        self.spool("a", self.images(300000 + 100 * self.round, 8))
        before = self.champion()
        after = 0 if before else 1
        pusher = Kamenctl(daemon, "push", "a", folder)
        promoter = Kamenctl(daemon, *(("mask", "promote", "a", "1") if after else
                                      ("mask", "rollback", "a")))
        pid = daemon.role(victim) if victim in ("ingest", "learner") else None
        try:
            self.promise(self.images(500000 + 100 * self.round, dice.randrange(0, 6)))
            time.sleep(dice.random() * .05)
            if victim == "serve":
                daemon.kill()
            elif victim == "client":
                pusher.end(kill=True)
            else:
                self.kill_role(victim, pid)
        finally:
            pusher.end()
            is_done = promoter.end()
        if victim == "serve":
            daemon.start()
        else:
            self.assertIsNone(daemon.process.poll(), "serve itself lives on")
        self.assertIn(self.champion(), (after,) if is_done else (before, after))
        self.evidence.promise_done("a")
        with database(daemon.path("state")) as db:
            self.evidence.check(db)

    def start_round(self, seed):
        rows = self.daemon.ctl("mask", "list", "a")
        self.assertNotIn("failed", {row["state"] for row in rows})
        if not any(row["state"] == "learning" for row in rows):
            self.daemon.ctl("learn", "a", "--steps", "60", "--seed", str(seed))

    def test_kills_lose_nothing_that_was_accepted(self):
        seed = int(os.environ.get("KAMEN_SEED", "20"))
        print(f"seed {seed}, {N_KILLS} kills", flush=True)
        dice = random.Random(seed)
        daemon, self.round = self.daemon, 0
        self.evidence = Evidence(daemon.path("state"))
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        first = self.images(0, 64)
        self.probe = os.path.join(first, "00000.png")
        self.promise(first)
        daemon.ctl("learn", "a", "--steps", "60", "--wait")
        if daemon.one("mask", "show", "a", "1")["state"] == "held":
            let_pass(daemon, "a", 1)
        daemon.ctl("mask", "promote", "a", "1")

        victims = [VICTIMS[i % 4] for i in range(N_KILLS)]
        dice.shuffle(victims)
        for self.round, victim in enumerate(victims):
            self.start_round(self.round)
            with self.subTest(seed=seed, round=self.round, victim=victim):
                self.strike(victim, dice)
        self.last_round_ends()
        self.everything_is_known()
        daemon.stop()
        with database(daemon.path("state")) as db:
            self.evidence.check(db)
            self.evidence.check_stopped(db)
        for kmask in glob.glob(daemon.path("state/sites/a/masks/*.kmask")):
            daemon.ctl("mask", "verify", kmask)
        promised = len(self.evidence.promised["a"])
        print(f"seed {seed}: {N_KILLS} kills, {promised} images promised and there, "
              f"{len(self.evidence.chain)} rows of audit", flush=True)

    def last_round_ends(self):
        daemon = self.daemon
        for row in daemon.ctl("mask", "list", "a"):
            wait_until(lambda: daemon.one("mask", "show", "a", row["version"])["state"] !=
                       "learning", "the round that was hit ends")
        self.assertNotIn("failed", {row["state"] for row in daemon.ctl("mask", "list", "a")})

    def everything_is_known(self):
        """After one more kill: the spool is read to its end, nothing of it was refused."""
        daemon = self.daemon
        champion = self.champion()
        daemon.kill()
        daemon.start()
        self.assertEqual(self.champion(), champion)
        spool = daemon.path("state/spool/a")
        wait_until(lambda: not [name for name in os.listdir(spool) if name.endswith(".png")],
                   "the spool is read")
        self.assertEqual(os.listdir(spool + "/bad"), [])
        self.evidence.promise_done("a")
        self.assertGreaterEqual(len(self.evidence.promised["a"]), 64 + N_KILLS * 8)
        self.assertGreaterEqual(daemon.one("site", "show", "a")["images"],
                                len(self.evidence.promised["a"]))


if __name__ == "__main__":
    unittest.main()
