# SPDX-License-Identifier: Apache-2.0
"""The power fails under a whole daemon: before the n-th fsync, rename or unlink of its three roles.

KAMEN_POINTS: how many points of one life are tried (default 4), KAMEN_SEED: which; or KAMEN_PART=K/N:
the K-th of N parts of every one."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import unittest

import harness
from evidence import Evidence, chain, database
from harness import fixture, wait_until

SHIM, TOOL = os.environ["KAMEN_CRASH_SHIM"], os.environ["KAMEN_DISK_TOOL"]
LOSSES = ("drop", "mix", "names", "keep")
# Far enough for some bits to move: what moves none is given up.
CONFIG = "[site]\nlearn_min_images = 2\nrecipe = score_lr=.07\n"


class PowerFailed(Exception):
    pass


def tool(*args):
    return subprocess.run([TOOL, *map(str, args)], check=True, capture_output=True,
                          text=True).stdout


class Told:
    """What a user of the daemon knows: now, or next while a verb is under way."""

    def __init__(self):
        self.now = self.next = {"a": 1, "c": 0}  # site -> champion

    @contextlib.contextmanager
    def verb(self, **change):
        self.next = {site: champion for site, champion in {**self.now, **change}.items()
                     if champion is not None}
        yield
        self.now = self.next


class Crash(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon(CONFIG, flawed=True)
        cls.addClassCleanup(cls.daemon.close)
        cls.prepare()

    @classmethod
    def folder(cls, name, first, n):
        folder = cls.daemon.path(name)
        os.makedirs(folder)
        fixture("images", folder, first, n)
        return [os.path.join(folder, image) for image in sorted(os.listdir(folder))]

    @classmethod
    def prepare(cls):
        """A state with a champion, to begin each life with."""
        daemon = cls.daemon.start()
        many = cls.folder("many", 20000, 480)
        cls.few = cls.folder("few", 0, 12)
        cls.folder("some", 1000, 120)
        cls.probe, cls.mended = many[0], daemon.path("mended.kmask")
        fixture("mend", daemon.model, cls.mended)
        daemon.ctl("site", "create", "a")
        daemon.ctl("push", "a", daemon.path("many"))
        daemon.ctl("site", "create", "c", "--set", "policy=manual")
        daemon.ctl("push", "c", daemon.path("some"))
        daemon.ctl("mask", "import", "a", cls.mended)
        wait_until(lambda: daemon.one("site", "show", "a")["champion"] == 1, "the mended mask")
        daemon.stop()
        cls.state, cls.shadow = daemon.path("state"), daemon.path("shadow")
        shutil.copytree(cls.state, daemon.path("template"))

    # ---- one life

    def try_verb(self, *args):
        """A command that only the cut may stop."""
        done = self.daemon.command(*args)
        if done.returncode != 0:
            self.cut(done.stderr)

    def cut(self, said):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.process.wait(10)
        if self.daemon.process.poll() != -signal.SIGKILL:
            raise AssertionError(f"{said}\nlog:\n{self.daemon.log()}")
        raise PowerFailed

    def push(self, evidence, site, images):
        try:
            with contextlib.closing(self.daemon.session()) as session:
                for path in images:
                    with open(path, "rb") as file:
                        data = file.read()
                    answer = session.ask(0, harness.PUSH, data, site=site)
                    self.assertEqual(answer["code"], 0, answer)
                    evidence.promise(site, data)
        except OSError as error:
            self.cut(error)

    def spool(self, images):
        into = os.path.join(self.state, "spool/a")
        for path in images:
            hidden = os.path.join(into, "." + os.path.basename(path))
            shutil.copy(path, hidden)
            os.rename(hidden, os.path.join(into, os.path.basename(path)))
        self.until(lambda: not [n for n in os.listdir(into) if n.endswith(".png")])

    def until(self, condition):
        """Waits for the daemon, as long as there is one."""
        wait_until(lambda: self.daemon.process.poll() is not None or condition(), "the daemon")
        if self.daemon.process.poll() is not None:
            self.cut("it ended")

    def version_settles(self, version):
        def settled():
            done = self.daemon.command("mask", "show", "a", str(version), "--json")
            return done.returncode == 0 and '"learning"' not in done.stdout
        self.until(settled)

    def champion(self, site):
        done = self.daemon.command("site", "show", site, "--json")
        if done.returncode != 0:
            self.cut(done.stderr)
        return json.loads(done.stdout)["champion"]

    def lead(self, told, evidence):
        """Ingest by two ways, learning, a candidate that passes, promotion, rollback, deletion."""
        with told.verb(b=0):
            self.try_verb("site", "create", "b")
        self.push(evidence, "a", self.few[:3])
        self.spool(self.few[3:6])
        self.push(evidence, "b", self.few[:4])
        self.try_verb("learn", "c", "--steps", "60", "--wait")
        with told.verb(a=0):
            self.try_verb("mask", "rollback", "a")
        with told.verb(a=1):
            self.try_verb("mask", "promote", "a", "1")
        with told.verb(a=2):
            self.try_verb("mask", "import", "a", self.mended)
            self.version_settles(2)
            # The gate may find it no better than the same mask that serves.
            told.next["a"] = self.champion("a")
        self.push(evidence, "a", self.few[6:9])
        gone = evidence.promised.pop("b")
        with told.verb(b=None):
            self.try_verb("site", "delete", "b", "--yes")
        with told.verb(b=0):
            self.try_verb("site", "create", "b")
        self.push(evidence, "b", self.few[:2])
        self.assertGreaterEqual(gone, evidence.promised["b"])

    def live(self, stop_at):
        """@return what was told, what was promised, and whether the power failed"""
        shutil.rmtree(self.state)
        shutil.copytree(self.daemon.path("template"), self.state)
        tool("settle", self.state, self.shadow, stop_at)
        told, evidence = Told(), Evidence(self.state)
        with database(self.state) as db:
            evidence.promised = {site: set(evidence.images(db, site)) for site in told.now}
            evidence.check(db)
        # A sanitizer's library wants to come first, and does without.
        self.daemon.spawn(alone=True, LD_PRELOAD=SHIM, KAMEN_CRASH_ROOT=self.state,
                          KAMEN_CRASH_SHADOW=self.shadow,
                          ASAN_OPTIONS="verify_asan_link_order=0")
        try:
            self.until(lambda: any("READY=1" in note for note in self.daemon.notes.heard))
            self.lead(told, evidence)
            self.daemon.process.send_signal(signal.SIGTERM)
            if self.daemon.process.wait(harness.PATIENCE) != 0:
                self.cut("it did not end in order")
        except PowerFailed:
            evidence.promise_done("a")
            return told, evidence, True
        evidence.promise_done("a")
        return told, evidence, False

    # ---- what is left

    def check(self, told, evidence, before):
        daemon = self.daemon.start()
        with database(self.state) as db:
            self.assertGreaterEqual(len(chain(db)), before)
            evidence.check(db)
        sites = {row["site"]: row["champion"] for row in daemon.ctl("site", "list")}
        self.assertIn(sites, (told.now, told.next))
        self.assertEqual(daemon.one("infer", "a", self.probe)["mask"], sites["a"])
        for site in sites:
            for row in daemon.ctl("mask", "list", site):
                wait_until(lambda: daemon.one("mask", "show", site, row["version"])["state"] !=
                           "learning", "the round that was cut ends")
                self.assertNotEqual(daemon.one("mask", "show", site, row["version"])["state"],
                                    "failed", daemon.log())
        daemon.ctl("mask", "promote", "a", "0")
        self.assertEqual(daemon.one("infer", "a", self.probe)["mask"], 0)
        daemon.stop()
        with database(self.state) as db:
            evidence.check(db)
            evidence.check_stopped(db)

    def cut_at(self, point, loss):
        """@return whether this life had so many points: who commits with whom is not the same each time"""
        told, evidence, failed = self.live(point)
        before = len(evidence.chain)
        left = self.daemon.path("left")
        tool("rebuild", self.state, self.shadow, left, loss, point)
        shutil.rmtree(self.state)
        os.rename(left, self.state)
        self.check(told, evidence, before)
        return failed

    def choose(self, n_points):
        part = os.environ.get("KAMEN_PART")
        if part:
            first, step = map(int, part.split("/"))
            return f"part {part}", list(range(first, n_points + 1, step))
        seed = int(os.environ.get("KAMEN_SEED", "1"))
        n = int(os.environ.get("KAMEN_POINTS", "4"))
        return f"seed {seed}", sorted(random.Random(seed).sample(range(1, n_points - 5), n))

    def test_nothing_told_is_lost_wherever_the_power_fails(self):
        _, _, failed = self.live(0)
        self.assertFalse(failed)
        n_points = int(tool("points", self.shadow))
        self.assertGreater(n_points, 50)
        which, points = self.choose(n_points)
        n_cut = 0
        for i, point in enumerate(points):
            loss = LOSSES[(i + point) % len(LOSSES)]
            with self.subTest(point=point, loss=loss):
                n_cut += self.cut_at(point, loss)
        print(f"{which}: cut at {n_cut} of {n_points} points", flush=True)
        self.assertGreater(n_cut, len(points) * .8)


if __name__ == "__main__":
    unittest.main()
