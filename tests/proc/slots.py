# SPDX-License-Identifier: Apache-2.0
"""Masks by turns in as many weight slots as memory allows."""

import os
import re
import unittest

import harness
from harness import fixture

IMAGES = 48


class Slots(harness.Case):
    def daemon_with(self, settings):
        daemon = harness.Daemon(settings, flawed=True)
        self.addCleanup(daemon.close)
        daemon.start()
        mended = daemon.path("mended.kmask")
        fixture("mend", daemon.model, mended)
        daemon.ctl("site", "create", "s", "--set", "policy=manual")
        daemon.ctl("push", "s", self.folder)
        version = daemon.one("mask", "import", "s", mended)["version"]
        harness.wait_until(lambda: daemon.one("mask", "show", "s", version)["state"] != "learning",
                           "the imported mask is judged")
        return daemon, version, mended

    def setUp(self):
        self.folder = self.images(20000, IMAGES)

    def figure(self, daemon, name):
        return float(re.search(rf"^{name} (\S+)$", daemon.command("metrics").stdout, re.M)[1])

    def ask(self, daemon, version):
        return daemon.one("infer", "s", os.path.join(self.folder, "20000.png"), "--mask", version,
                          "--embedding")["embedding"]

    def by_turns(self, settings):
        daemon, version, mended = self.daemon_with(settings)
        image = os.path.join(self.folder, "20000.png")
        want = {v: [float(x) for x in fixture("forward", daemon.precision(), daemon.model, mask, image).split()]
                for v, mask in ((0, "-"), (version, mended))}
        before = self.figure(daemon, "kamen_slot_switches_total")
        for _ in range(5):
            for v in (version, 0):
                got = self.ask(daemon, v)
                self.assertLess(max(abs(a - b) for a, b in zip(got, want[v], strict=True)), 1e-4)
        return (self.figure(daemon, "kamen_slot_switches_total") - before,
                self.figure(daemon, "kamen_slot_bytes"))

    def test_one_slot_is_there_whatever_memory_is_allowed_and_more_where_they_fit(self):
        switches, one = self.by_turns("[serve]\nslots = 8\nslot_memory = 65536\n")
        self.assertGreater(2 * one, 65536, "a second one would not fit")
        self.assertEqual(switches, 10, "every answer switches")
        switches, two = self.by_turns("[serve]\nslots = 8\nslot_memory = 67108864\n")
        self.assertEqual(two, 2 * one, "no more than are used")
        self.assertLessEqual(switches, 2, "each has its own")


if __name__ == "__main__":
    unittest.main()
