# SPDX-License-Identifier: Apache-2.0
"""The learner beside batches: it stands while one computes, goes on behind it, and ends with its parent."""

import os
import re
import time
import unittest

import harness
from harness import Daemon, wait_until

PX = 32
# Longer than the test loads the daemon.
STEPS = 4000


class Beside(unittest.TestCase):
    def daemon_with(self, settings=""):
        daemon = Daemon("[site]\npolicy = manual\nrecipe = batch=8\n" + settings, flawed=True)
        self.addCleanup(daemon.close)
        return daemon.start()

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
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]

    def states_under_load(self, daemon, pid, seconds=2):
        """What the learner is found in while batch follows upon batch."""
        session = daemon.session()
        pixels = bytes(3 * PX * PX)
        seen = {}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for slot in range(session.n):
                session.submit(slot, harness.INFER, pixels, site="line", fmt=harness.RGB8,
                               width=PX, height=PX)
            for _ in range(session.n):
                state = self.state(pid)
                seen[state] = seen.get(state, 0) + 1
                self.assertEqual(session.wait()["code"], 0)
        session.close()
        return seen

    def test_it_stands_while_a_batch_computes_and_goes_on_behind_it(self):
        daemon = self.daemon_with()
        pid = self.learns(daemon)
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            self.assertIn("THP_enabled:\t0\n", file.read())
        self.assertIn("T", self.states_under_load(daemon, pid))
        self.assertGreater(self.metric(daemon, "kamen_learner_held_seconds_total"), 0)
        for _ in range(50):
            self.assertNotEqual(self.state(pid), "T", "nothing computes")
            time.sleep(.002)
        step = self.metric(daemon, "kamen_learning_step")
        wait_until(lambda: self.metric(daemon, "kamen_learning_step") > step, "a step more")
        self.assertEqual(daemon.role("learner"), pid)

    def test_its_end_does_not_wait_for_batches(self):
        daemon = self.daemon_with()
        pid = self.learns(daemon)
        self.states_under_load(daemon, pid, 1)
        daemon.stop()
        self.assertFalse(os.path.exists(f"/proc/{pid}"))

    def test_it_dies_with_a_parent_that_is_killed_beside_it(self):
        daemon = self.daemon_with()
        pid = self.learns(daemon)
        session = daemon.session()
        pixels = bytes(3 * PX * PX)
        for _ in range(200):
            for slot in range(session.n):
                session.submit(slot, harness.INFER, pixels, site="line", fmt=harness.RGB8,
                               width=PX, height=PX)
            if self.state(pid) == "T":
                break
            for _ in range(session.n):
                session.wait()
        daemon.kill()
        session.close()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}") or
                   self.state(pid) in "ZX", "the learner's end")

    def test_a_share_of_its_own_is_not_taken_away(self):
        daemon = self.daemon_with("[learner]\ncpu = 50\n")
        pid = self.learns(daemon)
        self.assertNotIn("T", self.states_under_load(daemon, pid, 1))
        self.assertEqual(self.metric(daemon, "kamen_learner_held_seconds_total"), 0)


if __name__ == "__main__":
    unittest.main()
