# SPDX-License-Identifier: Apache-2.0
"""What a version was judged in is what it is served in, whatever new ones are."""

import math
import os
import re
import unittest

import harness
from harness import Daemon, fixture, wait_until

IMAGES = 120
EX_CONFIG = 78
# As an older CPU: no instructions for bf16.
OLD = {"ONEDNN_MAX_CPU_ISA": "AVX2"}


def has_vnni():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return "avx512_vnni" in f.read()


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))


class Precision(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon(flawed=True)
        self.addCleanup(self.daemon.close)
        self.folder = self.daemon.path("images")
        os.makedirs(self.folder)
        fixture("images", self.folder, 20000, IMAGES)
        self.mended = self.daemon.path("mended.kmask")
        fixture("mend", self.daemon.model, self.mended)

    def start(self, precision, **how):
        self.daemon.write("kamend.conf", f"[serve]\nprecision = {precision}\n")
        return self.daemon.start(**how).precision()

    def learnt(self, site):
        """A site with a champion, and the base's references."""
        daemon = self.daemon
        daemon.ctl("site", "create", site, "--set", "policy=manual")
        daemon.push_in_order(site, self.folder)
        version = daemon.one("mask", "import", site, self.mended)["version"]
        wait_until(lambda: daemon.one("mask", "show", site, version)["state"] == "candidate",
                   "the mask is judged")
        daemon.ctl("mask", "promote", site, version)

    def ask(self, site, *how):
        answer = self.daemon.one("infer", site, os.path.join(self.folder, "20000.png"),
                                 "--embedding", *how)
        return answer["space"], answer["verdict"], answer["embedding"]

    def precision_of(self, site):
        return self.daemon.one("site", "show", site)["precision"]

    def test_a_version_is_served_in_the_precision_it_was_judged_in(self):
        self.assertEqual(self.start("f32"), "f32")
        self.learnt("a")
        asked = ("a",), ("a", "--mask", "base")
        first = [self.ask(*how) for how in asked]
        for space, verdict, _ in first:
            self.assertIn(verdict, ("OK", "NG"))
        self.assertEqual(self.precision_of("a"), "f32")
        self.daemon.stop()

        if self.start("auto") == "f32":
            self.skipTest("this CPU has no bf16")
        self.assertEqual([self.ask(*how) for how in asked], first, "bit for bit")
        self.assertEqual(self.precision_of("a"), "f32")
        self.learnt("b")
        rounded = self.ask("b")
        self.assertEqual(self.precision_of("b"), "bf16")
        self.assertNotEqual(rounded[0], first[0][0])
        self.assertIn(rounded[1], ("OK", "NG"))
        self.assertNotEqual(rounded[2], first[0][2], "the sites have one mask")
        self.assertGreater(cosine(rounded[2], first[0][2]), .999)
        for _ in range(3):
            self.assertEqual(self.ask("a"), first[0])
            self.assertEqual(self.ask("b"), rounded)
        self.daemon.stop()

        self.assertEqual(self.start("f32"), "f32")
        self.assertEqual(self.ask("b"), rounded)
        self.assertEqual(self.precision_of("b"), "bf16")

    @unittest.skipUnless(has_vnni(), "this CPU has no int8")
    def test_int8_is_opted_into_and_judged_in_int8(self):
        self.assertIn(self.start("auto"), ("f32", "bf16"))
        self.learnt("a")
        plain = self.ask("a")
        self.daemon.stop()

        self.assertEqual(self.start("int8"), "int8")
        self.assertEqual(self.ask("a"), plain)
        self.learnt("b")
        self.assertEqual(self.precision_of("b"), "int8")
        asked = ("b",), ("b", "--mask", "base")
        first = [self.ask(*how) for how in asked]
        for space, verdict, _ in first:
            self.assertIn(verdict, ("OK", "NG"))
            self.assertNotEqual(space, plain[0])
        self.assertGreater(cosine(first[0][2], plain[2]), .98)
        want = fixture("forward", "int8", self.daemon.model, self.mended,
                       os.path.join(self.folder, "20000.png"))
        self.assertGreater(cosine(first[0][2], [float(x) for x in want.split()]), .999999)
        for _ in range(3):
            self.assertEqual(self.ask("a"), plain)
            self.assertEqual([self.ask(*how) for how in asked], first)
        self.daemon.stop()

        self.assertIn(self.start("auto"), ("f32", "bf16"))
        self.assertEqual([self.ask(*how) for how in asked], first, "bit for bit")
        self.assertEqual(self.precision_of("b"), "int8")

    def figure(self, name):
        text = self.daemon.command("metrics").stdout
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])

    def by_turns(self, memory):
        """Sites of both precisions and the base of each -> switches of twelve answers, bytes"""
        self.daemon.write("kamend.conf", f"[serve]\nslots = 8\nslot_memory = {memory}\n")
        self.daemon.start()
        asked = [(site, *how) for site in "ab" for how in ((), ("--mask", "base"))]
        answers = [self.ask(*how) for how in asked]
        before = self.figure("kamen_slot_switches_total")
        for _ in range(3):
            self.assertEqual([self.ask(*how) for how in asked], answers)
        found = self.figure("kamen_slot_switches_total") - before, self.figure("kamen_slot_bytes")
        self.daemon.stop()
        return found

    def test_slots_of_both_share_what_memory_is_allowed(self):
        self.start("f32")
        self.learnt("a")
        f32 = self.figure("kamen_slot_bytes")
        self.daemon.stop()
        if self.start("auto") == "f32":
            self.skipTest("this CPU has no bf16")
        self.learnt("b")
        self.daemon.stop()
        switches, enough = self.by_turns(1 << 26)
        self.assertEqual(switches, 0)
        self.assertLess(enough, 4 * f32, "two of them are smaller")
        # One of each: every answer finds one of its precision, and switches it.
        switches, held = self.by_turns(int(1.9 * f32))
        self.assertEqual(switches, 12)
        self.assertTrue(f32 < held <= 1.9 * f32)
        switches, held = self.by_turns(65536)
        self.assertEqual(switches, 12)
        self.assertLess(held, 1.1 * f32)

    def test_a_cpu_without_it_says_so(self):
        precision = self.start("auto")
        self.learnt("a")
        self.assertIn(self.ask("a")[1], ("OK", "NG"))
        self.daemon.stop()
        self.assertEqual(self.start("auto", **OLD), "f32")
        if precision == "bf16":
            self.assertEqual(self.ask("a")[1], "UNKNOWN")
            self.assertIn("precision that this CPU does not have", self.daemon.log())
        self.daemon.stop()
        for name in ("bf16", "int8"):
            self.daemon.write("kamend.conf", f"[serve]\nprecision = {name}\n")
            self.assertEqual(self.daemon.spawn(**OLD).wait(harness.PATIENCE), EX_CONFIG)
            self.assertIn(f"precision {name}: this CPU (avx2) does not have it", self.daemon.log())


if __name__ == "__main__":
    unittest.main()
