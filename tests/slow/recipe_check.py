# SPDX-License-Identifier: Apache-2.0
"""The study of the recipe on a tiny network and rendered images: resumes, keeps lines, draws.

recipe_check.py RECIPE_STUDY RANDOM_MODEL
"""

import csv
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import recipe
import tiny

STUDY, RANDOM_MODEL = sys.argv.pop(1), sys.argv.pop(1)


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        tiny.make(cls.folder.name, RANDOM_MODEL)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def path(self, suffix):
        return f"{self.folder.name}/{self.id().rsplit('.', 1)[-1]}.{suffix}"

    def command(self, *more, suffix="csv"):
        return [STUDY, "--model", f"{self.folder.name}/{tiny.MODEL}", "--data",
                f"{self.folder.name}/images", "--csv", self.path(suffix), "--scratch",
                self.path(suffix + ".scratch"), *tiny.OPTIONS, *more]

    def study(self, *more, suffix="csv"):
        done = subprocess.run(self.command(*more, suffix=suffix), text=True, capture_output=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout, done.stderr

    def content(self, suffix="csv"):
        with open(self.path(suffix), "rb") as file:
            return file.read()

    def test_what_has_a_line_is_not_run_again(self):
        self.assertIn("1 runs", self.study("--only", "default", "--seed", "1")[0])
        first = self.content()
        with open(self.path("csv"), "ab") as file:
            file.write(first.splitlines(True)[1][:100])
        self.assertIn("2 runs", self.study("--only", "default")[0])
        self.assertTrue(self.content().startswith(first))
        self.assertEqual([line["value"] for line in recipe.read(self.path("csv"))],
                         ["1", "2", "3"])
        before = self.content()
        self.assertIn("0 runs", self.study("--only", "default")[0])
        self.assertEqual(self.content(), before)
        self.assertIn("1 runs", self.study("--only", "default", "--seed", "1", "--set",
                                           "temperature=.2")[0])

    def test_what_was_killed_goes_on_and_comes_to_the_same(self):
        one = ["--only", "steps", "--seed", "1", "--set", "n_prototypes=5"]
        killed = subprocess.Popen(self.command(*one), text=True, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE)
        for said in killed.stderr:
            if said.startswith("  step 10 of 20"):
                break
        killed.kill()
        killed.wait()
        killed.stderr.close()
        self.assertNotIn("step 10", self.study(*one)[1])
        self.assertIn("step 10", self.study(*one, suffix="whole")[1])
        runs = [[{**line, "seconds": "", "ms": ""} for line in recipe.read(self.path(suffix))]
                for suffix in ("csv", "whole")]
        self.assertEqual(runs[0], runs[1])
        self.assertTrue(any(int(line["flips"]) > 0 for line in runs[0]))

    def test_a_file_of_other_columns_is_left_alone(self):
        with open(self.path("csv"), "w", encoding="utf-8") as file:
            file.write("key,other\n1,2\n")
        done = subprocess.run(self.command("--only", "default"), capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("other columns", done.stderr)
        self.assertEqual(self.content(), b"key,other\n1,2\n")

    def test_every_factor_becomes_a_panel(self):
        self.study("--only", "default", "--seed", "1", "--set", "n_small=1")
        with open(self.path("csv"), encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        for factor, value in (("batch", "32"), ("native", "crop 224, travel 1.5")):
            lines.append({**lines[0], "factor": factor, "value": value, "passed": "0",
                          "knn": "0.01"})
        with open(self.path("csv"), "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, lines[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        status = subprocess.run([sys.executable, recipe.__file__, "--draw", "--csv",
                                 self.path("csv"), "--svg", self.path("svg")],
                                capture_output=True, text=True, check=False)
        self.assertEqual(status.returncode, 0, status.stderr)
        root = xml.etree.ElementTree.fromstring(self.content("svg").decode())
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        for word in ("batch", "8", "32", "native", "crop 224"):
            self.assertIn(word, words)
        self.assertIn("batch 32:", status.stdout)

    def test_the_committed_lines_can_be_drawn(self):
        path = os.path.join(os.path.dirname(recipe.__file__), "recipe.csv")
        if not os.path.exists(path):
            self.skipTest("there is no study yet")
        xml.etree.ElementTree.fromstring(recipe.draw(recipe.read(path)))


if __name__ == "__main__":
    unittest.main()
