# SPDX-License-Identifier: Apache-2.0
"""Few-shot figures of masks on a tiny network and rendered images: what is learnt is not learnt again,
an arm without a mask is told as one.

few_check.py FEW RANDOM_MODEL
"""

import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tiny

FEW, RANDOM_MODEL = sys.argv.pop(1), sys.argv.pop(1)
RECIPE = "batch=8 large_px=48 small_px=32 queue=0 "


class Few(unittest.TestCase):
    def few(self, *more):
        done = subprocess.run(
            [FEW, "--sets", "neu", "--folder", f"{self.folder}/few", "--arms", "swav", "--px", "48",
             "--steps", "20", "--episodes", "30", *more], text=True, capture_output=True, check=False,
            env=dict(os.environ, KAMEN_SHARED=self.folder))
        return done.returncode, done.stdout

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        tiny.make(self.folder, RANDOM_MODEL)
        os.mkdir(f"{self.folder}/data")
        os.rename(f"{self.folder}/images", f"{self.folder}/data/neu")

    def test_what_is_learnt_is_not_learnt_again(self):
        first = self.few("--recipe", RECIPE + "score_lr=.15")
        self.assertIn("seed 1: step ", first[1])
        again = self.few("--recipe", RECIPE + "score_lr=.15")
        self.assertNotIn("seed 1: step ", again[1])
        lines = [line for line in first[1].splitlines() if ": step " not in line]
        self.assertEqual((first[0], lines), (again[0], again[1].splitlines()))
        self.assertRegex(lines[-1], "^swav at five shots on NEU: ")

    def test_what_learns_from_labels_has_them(self):
        status, said = self.few("--arms", "supervised", "--recipe", "batch=8 large_px=48")
        self.assertIn(status, (0, 1), said)
        self.assertRegex(said, "supervised at five shots on NEU: ")

    def test_an_arm_without_a_mask_is_not_the_frozen_model(self):
        for _ in range(2):
            status, said = self.few("--recipe", RECIPE + "score_lr=0")
            self.assertEqual(status, 1, said)
            self.assertIn("no candidate", said)
            self.assertNotRegex(said, "neu +swav +seed 1 +(class|pooled)")
            self.assertIn("swav at five shots on NEU: no candidate", said)


if __name__ == "__main__":
    unittest.main()
