# SPDX-License-Identifier: Apache-2.0
"""The table of gains on a tiny network and rendered images: what is finished is not run again.

adapt_check.py ADAPT RANDOM_MODEL
"""

import csv
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tiny

ADAPT, RANDOM_MODEL = sys.argv.pop(1), sys.argv.pop(1)


class Table(unittest.TestCase):
    def adapt(self, *more):
        done = subprocess.run(
            [ADAPT, "--data", f"{self.folder}/images", "--csv", f"{self.folder}/adapt.csv",
             "--arms", "adapted", *tiny.OPTIONS, "--set", "score_lr=.15", *more], text=True,
            capture_output=True, check=False, env=dict(os.environ, KAMEN_SHARED=self.folder))
        rows, _, table = f"\n{done.stdout}".partition("\n\n")
        return done.returncode, rows.split("\n")[1:], table

    def rows(self):
        with open(f"{self.folder}/adapt.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def test_what_is_finished_is_not_run_again(self):
        with tempfile.TemporaryDirectory() as self.folder:
            tiny.make(self.folder, RANDOM_MODEL)
            self.assertEqual(self.adapt("--table")[0], 1)
            status, rows, _ = self.adapt("--seeds", "1")
            self.assertIn(status, (0, 1))
            self.assertEqual(len(rows), 3, rows)
            status, rows, table = self.adapt("--seeds", "2")
            self.assertEqual(len(rows), 1, rows)
            self.assertEqual((status, [], table), self.adapt("--seeds", "2"))
            self.assertEqual((status, [], table), self.adapt("--seeds", "2", "--table"))
            for row in self.rows():
                if row["arm"] == "adapted":
                    self.assertGreater(int(row["flips"]), 0)
                    self.assertGreater(float(row["entropy"]), 0)
                    self.assertGreater(float(row["neighbours"]), 0)

            self.assertEqual(len(self.adapt("--seeds", "1", "--set", "n_small=1")[1]), 1)
            tiny.make_model(self.folder, RANDOM_MODEL, 2)
            self.assertEqual(len(self.adapt("--seeds", "1")[1]), 3)


if __name__ == "__main__":
    unittest.main()
