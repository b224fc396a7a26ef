# SPDX-License-Identifier: Apache-2.0
"""The life of a site: rounds that begin by themselves, pause, freeze, reset, pins, reproduction."""

import json
import os
import time
import unittest

import harness
from harness import wait_until


class Life(harness.Case):
    def site(self, name, *settings, n=48, first=0):
        sets = [word for setting in ("policy=manual", "learn_steps=4", *settings)
                for word in ("--set", setting)]
        self.daemon.ctl("site", "create", name, *sets)
        if n:
            self.push(name, first, n)

    def push(self, name, first, n):
        self.assertEqual(self.daemon.one("push", name, self.images(first, n))["accepted"], n)

    def versions(self, name):
        return {row["version"]: row["state"] for row in self.daemon.ctl("mask", "list", name)}

    def ended(self, name, version):
        return wait_until(
            lambda: self.versions(name).get(version, "learning") != "learning",
            f"the end of version {version} of {name}")

    def show(self, name):
        return self.daemon.one("site", "show", name)

    def test_a_round_begins_on_enough_new_images(self):
        self.site("eager", "learn_after=40", n=0)
        self.push("eager", 0, 39)
        self.assertEqual(self.show("eager")["new_images"], 39)
        self.push("eager", 100, 1)
        self.ended("eager", 1)
        row = self.daemon.one("mask", "show", "eager", "1")
        self.assertEqual(row["why"], "images, 40 new images")
        self.assertEqual((row["images"], self.show("eager")["new_images"]), (40, 0))

    def test_who_waits_for_images_or_the_clock_does_not_wake_up(self):
        self.site("calm", "learn_after=1000", "learn_every=1d", n=0)
        self.push("calm", 0, 40)

        def wakeups():
            pid = self.daemon.process.pid
            with open(f"/proc/{pid}/task/{pid}/status", encoding="ascii") as status:
                rows = dict(line.split(":", 1) for line in status)
            return int(rows["voluntary_ctxt_switches"])

        def in_three_seconds():
            before = wakeups()
            time.sleep(3)
            return wakeups() - before

        wait_until(lambda: in_three_seconds() <= 1, "three seconds without a look at what is due")

    def test_a_paused_site_takes_images_and_begins_nothing(self):
        self.site("tired", "learn_after=40", n=0)
        self.assertEqual(self.daemon.one("site", "pause", "tired")["state"], "paused")
        self.push("tired", 0, 48)
        self.assertIn("paused", self.daemon.error("learn", "tired"))
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.show("tired")["state"], "paused")
        self.assertEqual(self.versions("tired"), {})
        self.daemon.ctl("site", "resume", "tired")
        self.ended("tired", 1)

    def test_a_frozen_site_changes_nothing_but_back(self):
        self.site("still")
        self.daemon.ctl("learn", "still", "--wait")
        # A round of so many steps does not end before it is stopped.
        self.daemon.ctl("learn", "still", "--steps", "100000")
        self.assertEqual(self.daemon.one("site", "freeze", "still")["state"], "frozen")
        self.ended("still", 2)
        reasons = self.daemon.one("mask", "show", "still", "2")["gate"]["reasons"]
        self.assertEqual(reasons, ["the site was frozen"])
        self.assertIn("frozen", self.daemon.error("learn", "still"))
        self.assertIn("frozen", self.daemon.error("site", "pause", "still"))
        self.assertIn("frozen", self.daemon.error("site", "reset", "still", "--yes"))
        self.assertIn("frozen", self.daemon.error("mask", "promote", "still", "0"))
        refused = self.daemon.command("push", "still", self.images(200, 2))
        self.assertEqual((refused.returncode, refused.stderr.count("the site is frozen")), (1, 2))
        into = self.daemon.path("state/spool/still")
        name = self.spool("still", self.images(300, 1)) and os.listdir(self.images(300, 1))[0]
        self.assertEqual(self.show("still")["images"], 48)
        self.assertTrue(os.path.exists(os.path.join(into, name)), "what is spooled waits")
        self.daemon.ctl("site", "resume", "still")
        wait_until(lambda: self.show("still")["images"] == 49, "the spooled image")
        self.daemon.ctl("learn", "still", "--wait")

    def test_a_reset_goes_back_to_the_base(self):
        self.site("fresh")
        self.daemon.ctl("learn", "fresh", "--wait")
        self.assertEqual(self.daemon.command("site", "reset", "fresh").returncode, 2)
        self.daemon.ctl("learn", "fresh", "--steps", "100000")
        row = self.daemon.one("site", "reset", "fresh", "--yes")
        self.assertEqual((row["champion"], row["images"]), (0, 48))
        self.ended("fresh", 2)
        self.assertEqual(self.versions("fresh")[2], "failed")

    def test_a_version_is_learnt_again_bit_for_bit(self):
        self.site("again", "learn_steps=60", n=60)
        self.daemon.ctl("learn", "again", "--seed", "5", "--wait")
        rows = self.daemon.ctl("mask", "reproduce", "again", "1")
        self.assertEqual(rows[0]["steps"], 60, "progress comes first")
        self.assertTrue(rows[-1]["equal"], rows[-1])
        self.assertEqual(rows[-1]["mask_digest"], rows[-1]["again_digest"])
        self.assertIn("seed=5", self.daemon.one("mask", "show", "again", "1")["recipe"])
        # Later images, another size: what is stored with the version counts.
        self.daemon.stop()
        self.daemon.write("kamend.conf", "[site]\ninput_px = 64\n")
        self.daemon.start()
        self.assertEqual(self.show("again")["input_px"], 64)
        self.push("again", 500, 20)
        self.assertTrue(self.daemon.one("mask", "reproduce", "again", "1")["equal"])
        self.assertIn("no version 7", self.daemon.error("mask", "reproduce", "again", "7"))
        self.assertEqual(self.versions("again").keys(), {1}, "nothing is stored")

    def test_old_versions_go_and_pinned_ones_stay(self):
        self.site("deep", "keep_versions=2")
        self.daemon.ctl("learn", "deep", "--wait")
        self.assertTrue(self.daemon.one("mask", "pin", "deep", "1")["pinned"])
        for seed in range(2, 5):
            self.daemon.ctl("learn", "deep", "--seed", seed, "--wait")
        self.assertEqual(self.versions("deep").keys(), {1, 3, 4})
        self.assertFalse(self.daemon.one("mask", "unpin", "deep", "1")["pinned"])
        self.daemon.ctl("learn", "deep", "--seed", "9", "--wait")
        self.assertEqual(self.versions("deep").keys(), {4, 5})
        files = sorted(os.listdir(self.daemon.path("state/sites/deep/masks")))
        self.assertEqual({name.split(".")[0] for name in files}, {"0", "4", "5"})

    def test_near_duplicates_go_when_the_store_is_half_full(self):
        # Blobs are some kB: the smallest store that there is holds a few hundred.
        self.site("full", "replay_bytes=1M", "replay_thin=0.9", "learn_min_images=40",
                  "learn_steps=60", n=0)
        first = 0
        while self.show("full")["replay_bytes"] <= 1 << 19:
            self.push("full", 1000 + first, 50)
            first += 50
        before = self.show("full")["images"]
        self.daemon.ctl("learn", "full", "--wait")
        after = self.show("full")["images"]
        self.assertLess(after, before)
        self.assertGreaterEqual(after, 40)
        self.assertIn("are gone", self.daemon.error("mask", "reproduce", "full", "1"))

    def test_top_shows_every_site_with_what_it_does(self):
        self.site("seen", n=40)
        rows = {row["site"]: row for row in self.daemon.ctl("top", "--once")}
        self.assertEqual((rows["seen"]["images"], rows["seen"]["new_images"]), (40, 40))
        self.assertIsNone(rows["seen"]["requests_per_s"])
        image = os.path.join(self.images(0, 40), "00003.png")
        self.daemon.ctl("learn", "seen", "--steps", "100000")
        wait_until(lambda: self.row("seen").get("step"), "a step")
        self.daemon.ctl("infer", "seen", image, image)
        row = self.row("seen")
        self.assertEqual((row["state"], row["steps"], row["requests"]), ("learning", 100000, 42))
        self.assertGreater(row["seconds_left"], 0)
        self.assertGreaterEqual(row["p99_ms"], row["p50_ms"])
        looks = self.daemon.ctl("top", "--count", "2", "--interval", "0.1")
        mine = [look for look in looks if look["site"] == "seen"]
        self.assertEqual(len(mine), 2)
        self.assertEqual((mine[1]["requests_per_s"], mine[1]["p50_ms"]), (0, None))
        text = self.daemon.command("top", "--once").stdout
        self.assertRegex(text, r"(?m)^SITE +STATE +IMAGES")
        self.assertRegex(text, r"(?m)^seen +learning +40 +0 +v1 ")
        self.assertNotIn("\033", text)
        self.daemon.ctl("site", "delete", "seen", "--yes")

    def row(self, name):
        return next(row for row in self.daemon.ctl("top", "--once") if row["site"] == name)


class Fair(harness.Case):
    CONFIG = "[site]\npolicy = manual\nlearn_steps = 1\nlearn_after = 40\n"

    def test_many_sites_take_turns(self):
        names = [f"s{i}" for i in range(8)]
        for name in names:
            self.daemon.ctl("site", "create", name)
            self.daemon.ctl("push", name, self.images(0, 40))
        for name in names:
            wait_until(lambda: any(row["state"] != "learning"
                                   for row in self.daemon.ctl("mask", "list", name)),
                       f"a round of {name}")
        starts = [json.loads(line) if line.startswith("{") else line
                  for line in self.daemon.log().splitlines() if " is due (" in line]
        self.assertEqual(len(starts), 8, "one each")


if __name__ == "__main__":
    unittest.main()
