# SPDX-License-Identifier: Apache-2.0
"""The learner beside batches: it stands while one computes, and goes on behind it."""

import os
import re
import signal
import time
import unittest

import harness
from harness import Daemon, wait_until

PX = 32
# Longer than the test loads the daemon.
STEPS = 100000


class Beside(unittest.TestCase):
    def daemon_with(self, settings=""):
        daemon = Daemon("[site]\npolicy = manual\nrecipe = batch=8\n" + settings, flawed=True)
        self.addCleanup(daemon.close)
        # One thread is the harness's word: with more CPUs the learner would have some to itself.
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        try:
            return daemon.start()
        finally:
            os.sched_setaffinity(0, cpus)

    def learns(self, daemon):
        """A round that goes on for a while -> the learner's process"""
        daemon.ctl("site", "create", "line")
        folder = daemon.path("images")
        os.makedirs(folder)
        harness.fixture("images", folder, 0, 60)
        daemon.ctl("push", "line", folder)
        daemon.ctl("learn", "line", "--steps", STEPS)
        wait_until(lambda: self.metric(daemon, "kamen_learning_step") > 0, "the first step")
        return daemon.role("learner")

    @staticmethod
    def metric(daemon, name):
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", daemon.command("metrics").stdout, re.M)
        return float(found[1]) if found else 0

    @staticmethod
    def state(pid):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                return file.read().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "X"

    def load(self, daemon):
        """Batch upon batch. That the learner stands meanwhile is the unit test's: a signal reaches it when it
        gets a CPU, which may be after batches as short as these."""
        session = daemon.session()
        pixels = bytes(3 * PX * PX)
        for _ in range(20):
            for slot in range(session.n):
                session.submit(slot, harness.INFER, pixels, site="line", fmt=harness.RGB8,
                               width=PX, height=PX)
            for _ in range(session.n):
                self.assertEqual(session.wait()["code"], 0)
        session.close()

    def test_it_stands_while_a_batch_computes_and_goes_on_behind_it(self):
        daemon = self.daemon_with()
        pid = self.learns(daemon)
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            self.assertIn("THP_enabled:\t0\n", file.read())
        self.load(daemon)
        self.assertGreater(self.metric(daemon, "kamen_learner_held_seconds_total"), 0)
        wait_until(lambda: self.state(pid) != "T", "the learner goes on")
        for _ in range(50):
            self.assertNotEqual(self.state(pid), "T", "nothing computes")
            time.sleep(.002)
        step = self.metric(daemon, "kamen_learning_step")
        wait_until(lambda: self.metric(daemon, "kamen_learning_step") > step, "a step more")
        self.assertEqual(daemon.role("learner"), pid)

    def test_stopped_it_dies_with_its_parent(self):
        daemon = self.daemon_with()
        pid = self.learns(daemon)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: self.state(pid) == "T", "the learner's stop")
        daemon.kill()
        wait_until(lambda: self.state(pid) in "ZX", "the learner's end")

    def test_a_share_of_its_own_is_not_taken_away(self):
        daemon = self.daemon_with("[learner]\ncpu = 50\n")
        self.learns(daemon)
        self.load(daemon)
        self.assertEqual(self.metric(daemon, "kamen_learner_held_seconds_total"), 0)


if __name__ == "__main__":
    unittest.main()
