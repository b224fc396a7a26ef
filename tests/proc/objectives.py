# SPDX-License-Identifier: Apache-2.0
"""What a round may learn by, through the daemon: to a verdict, with its figures, and once more to the bit."""

import os
import unittest

import harness

# The rate is what moves bits in so few steps.
STEPS = 12
RECIPE = "batch=8 score_lr=.25"
N = 96


class Objectives(harness.Case):
    CONFIG = f"[site]\npolicy = manual\nlearn_steps = {STEPS}\n"

    def site(self, name, *settings):
        self.daemon.ctl("site", "create", name, "--set", "input_px=32", *settings)
        folder = self.images(7000, N)
        self.daemon.push_in_order(name, folder)
        return folder

    def label_every_other(self, site, folder):
        """A file at a time and several: two classes, and half of the images have none."""
        files = [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
        self.daemon.ctl("label", site, files[0], "even")
        self.daemon.ctl("label", site, *files[4::4], "even")
        self.daemon.ctl("label", site, *files[2::4], "odd")
        counts = {row["class"]: row["images"] for row in self.daemon.ctl("label", "list", site)}
        self.assertEqual(counts, {"even": N // 4, "odd": N // 4})

    def learns(self, site, objective, figures, *how):
        row = self.daemon.one("learn", site, "--wait", *how)
        self.assertIn(row["state"], ("candidate", "held"))
        shown = self.daemon.one("mask", "show", site, row["version"])
        self.assertIn(f"objective={objective} ", shown["recipe"])
        self.assertEqual(set(shown["figures"]), set(figures))
        for name, value in shown["figures"].items():
            self.assertIsNotNone(value, name)
        # By what who guesses would lose: a share, whatever the loss is made of.
        self.assertTrue(.05 < row["loss_ratio"] < 3, row["loss_ratio"])
        self.assertGreater(1, shown["density"], "bits have moved")
        again = self.daemon.one("mask", "reproduce", site, row["version"])
        self.assertTrue(again["equal"], again)
        return shown

    def test_every_objective_learns_to_a_verdict_and_the_same_again(self):
        folder = self.site("a", "--set", f"recipe={RECIPE}")
        for objective, figures in WITHOUT_LABELS.items():
            with self.subTest(objective):
                self.learns("a", objective, figures, "--objective", objective)
        # Without labels who wants them has nothing to learn from, and says so before there is a round.
        before = len(self.daemon.ctl("mask", "list", "a"))
        for objective in WITH_LABELS:
            self.assertIn("label", self.daemon.error("learn", "a", "--objective", objective))
        self.assertEqual(len(self.daemon.ctl("mask", "list", "a")), before)
        self.label_every_other("a", folder)
        for objective, figures in WITH_LABELS.items():
            with self.subTest(objective):
                shown = self.learns("a", objective, figures, "--objective", objective)
                self.assertIsNone(shown["hardness_bytes"])

    def test_a_site_may_have_its_own(self):
        self.site("b", "--set", f"recipe=objective=micm {RECIPE}")
        self.learns("b", "micm", WITHOUT_LABELS["micm"])
        self.learns("b", "swav", (), "--objective", "swav")
        error = self.daemon.error("learn", "b", "--objective", "magic")
        for objective in (*WITHOUT_LABELS, *WITH_LABELS):
            self.assertIn(objective, error)

    def test_a_cascade_is_not_learnt_so(self):
        self.site("d", "--set", "experts=2")
        for objective in ("hpm", "micm", "masksub"):
            self.assertIn("by swav", self.daemon.error("learn", "d", "--objective", objective))


WITHOUT_LABELS = {"swav": (), "hpm": ("reconstruction", "ranking", "pairs"), 
                  "micm": ("class", "patch", "pixel", "pseudo", "masked", "entropy")}
WITH_LABELS = {"supervised": (), "masksub": ("main", "sub")}

if __name__ == "__main__":
    unittest.main()
