# SPDX-License-Identifier: Apache-2.0
"""kill -9 of whoever it hits, again and again: no accepted image is lost, no file is torn."""

import glob
import os
import random
import signal
import sqlite3
import subprocess
import unittest

import harness
from flow import let_pass
from harness import BIN, fixture, wait_until

N_KILLS = 15
VICTIMS = ("serve", "ingest", "learner", "client")


class Pusher:
    """kamenctl push in the background; what it has been promised counts."""

    def __init__(self, daemon, folder):
        self.process = subprocess.Popen(
            [os.path.join(BIN, "kamenctl"), "--runtime", daemon.path("run"), "push", "a", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self, kill=False):
        if kill:
            self.process.kill()
        self.process.wait(harness.PATIENCE)


class Kills(harness.Case):
    def promise(self, folder):
        """Pushes one by one over a session of our own, and remembers what was accepted."""
        session = self.daemon.session()
        for path in sorted(glob.glob(os.path.join(folder, "*.png"))):
            with open(path, "rb") as file:
                data = file.read()
            answer = session.ask(0, harness.PUSH, data, site="a")
            if answer["code"] == 0 and answer["outcome"] in (0, 1):
                self.promised.add(data)
        session.close()

    def strike(self, victim, dice):
        daemon = self.daemon
        folder = self.images(10000 + 100 * self.round, 30)
        self.spool("a", self.images(30000 + 100 * self.round, 20))
        pusher = Pusher(daemon, folder)
        try:
            self.promise(self.images(50000 + 100 * self.round, dice.randrange(1, 8)))
            if victim == "serve":
                daemon.kill()
            elif victim == "client":
                pusher.end(kill=True)
            else:
                os.kill(daemon.role(victim), signal.SIGKILL)
        finally:
            pusher.end()
        if victim == "serve":
            daemon.start()
        else:
            old = daemon.role("serve")
            self.assertEqual(old, daemon.process.pid, "serve itself lives on")
        self.assertEqual(daemon.one("infer", "a", self.probe)["mask"], 1, "the champion serves")
        self.promise(self.images(70000 + 100 * self.round, 2))

    def check_files(self):
        state = self.daemon.path("state")
        with sqlite3.connect(os.path.join(state, "state.db")) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
            names = {row[0] for row in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'")}
            table = "image" if "image" in names else "images"
            blobs = {row[0] for row in db.execute(f"SELECT blob FROM {table}")}
        db.close()
        found = {os.path.basename(path) for path in glob.glob(state + "/sites/a/replay/*")}
        self.assertEqual(blobs, found, "a row for every blob, a blob for every row")
        fixture("kimg", *sorted(glob.glob(state + "/sites/a/replay/*")))
        for kmask in glob.glob(state + "/sites/a/masks/*.kmask"):
            self.daemon.ctl("mask", "verify", kmask)
        torn = [path for path in glob.glob(state + "/**/*.tmp", recursive=True)]
        self.assertEqual(torn, [])

    def test_fifteen_kills_lose_nothing_that_was_accepted(self):
        seed = int(os.environ.get("KAMEN_SEED", "20"))
        print(f"seed {seed}", flush=True)
        dice = random.Random(seed)
        daemon, self.promised, self.round = self.daemon, set(), 0
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        first = self.images(0, 64)
        self.probe = os.path.join(first, "00000.png")
        self.promise(first)
        daemon.ctl("learn", "a", "--steps", "40", "--wait")
        if daemon.one("mask", "show", "a", "1")["state"] == "held":
            let_pass(daemon, "a", 1)
        daemon.ctl("mask", "promote", "a", "1")

        victims = [VICTIMS[i % 4] for i in range(N_KILLS)]
        dice.shuffle(victims)
        for self.round, victim in enumerate(victims):
            if not any(row["state"] == "learning" for row in daemon.ctl("mask", "list", "a")):
                daemon.ctl("learn", "a", "--steps", "300", "--seed", str(self.round))
            with self.subTest(round=self.round, victim=victim):
                self.strike(victim, dice)

        running = [row["version"] for row in daemon.ctl("mask", "list", "a")
                   if row["state"] == "learning"]
        for version in running:
            wait_until(lambda: daemon.one("mask", "show", "a", version)["state"] in
                       ("held", "candidate"), "the round that was hit ends well")
        self.assertNotIn("failed", {row["state"] for row in daemon.ctl("mask", "list", "a")})
        daemon.kill()
        daemon.start()
        self.assertEqual(daemon.one("infer", "a", self.probe)["mask"], 1)
        self.assertGreaterEqual(daemon.one("site", "show", "a")["images"], len(self.promised))
        spool = daemon.path("state/spool/a")
        wait_until(lambda: not [name for name in os.listdir(spool) if name.endswith(".png")],
                   "the spool is read")
        self.assertEqual(os.listdir(spool + "/bad"), [])
        for path in glob.glob(spool + "/done/*"):
            with open(path, "rb") as file:
                self.promised.add(file.read())
        self.assertGreaterEqual(len(self.promised), 64 + N_KILLS * 20)
        session = daemon.session()
        for data in self.promised:
            self.assertEqual(session.ask(0, harness.PUSH, data, site="a")["outcome"], 1,
                             "what was accepted is known")
        session.close()
        daemon.stop()
        self.check_files()


if __name__ == "__main__":
    unittest.main()
