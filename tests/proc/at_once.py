# SPDX-License-Identifier: Apache-2.0
"""Batches told apart at once, by features that the daemon gives."""

import errno
import math
import os
import unittest

import classes
import harness
from harness import INFER

WANT_FEATURE = 8


class AtOnce(classes.Case):
    kinds = ("stripes", "checks", "dark", "ring")

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.daemon.write("kamend.conf", "[site]\npolicy = manual\n")
        cls.daemon.start()

    def ask(self, site, counts):
        """Of so many pictures of each kind, which are told as what they are, and a row."""
        paths, wants = [], []
        for kind, n in zip(self.kinds, counts):
            paths += self.pictures(kind, 700, n)
            wants += [kind] * n
        rows = self.daemon.ctl("infer", site, "--opta", *paths)
        self.assertEqual([row["file"] for row in rows], paths)
        return [row["label"] == want for row, want in zip(rows, wants)], rows[0]

    def test_a_batch_is_told_apart_at_once(self):
        self.site("batch")
        for kind in self.kinds:
            self.add("batch", kind, 1)
        right, row = self.ask("batch", (8, 8, 8, 8))
        self.assertTrue(all(right))
        self.assertTrue(row["balanced"])
        self.assertLess(row["imbalance"], .12)
        self.assertTrue(.25 < row["score"] <= 1)
        self.assertEqual(row["space"], self.daemon.one("infer", "batch", *self.pictures("dark", 700, 1))["space"])
        right, row = self.ask("batch", (30, 3, 3, 3))
        self.assertTrue(all(right))
        self.assertFalse(row["balanced"])
        self.assertGreater(row["imbalance"], .3)
        right, row = self.ask("batch", (1, 0, 0, 0))
        self.assertTrue(all(right))

    def test_an_answer_says_how_sure_each_class_is(self):
        self.site("sure")
        for kind in self.kinds:
            self.add("sure", kind, 3)
        pictures = self.pictures("stripes", 900, 2) + self.pictures("dark", 900, 2)
        for row in self.daemon.ctl("infer", "sure", "--confidences", *pictures):
            sure = row["confidences"]
            self.assertEqual(set(sure), set(self.kinds))
            self.assertAlmostEqual(sum(sure.values()), 1, 5)
            self.assertEqual(max(sure, key=sure.get), row["label"])
            self.assertAlmostEqual(sure[row["label"]], row["score"], 4)
        self.assertNotIn("confidences", self.daemon.one("infer", "sure", pictures[0]))
        for more in (["--embedding"], ["--mask", "base"], ["--opta"], ["--hardness", "map.png"]):
            self.assertEqual(self.daemon.command("infer", "sure", "--confidences", *more, pictures[0]).returncode, 2)

    def test_what_is_of_no_class_is_left_out(self):
        self.site("rest")
        for kind in self.kinds[:3]:
            self.add("rest", kind, 8)
        rings = self.pictures("ring", 800, 4)
        rows = self.daemon.ctl("infer", "rest", "--opta", *rings, *self.pictures("checks", 800, 4))
        for row in rows[:4]:
            self.assertIsNone(row["label"])
            self.assertGreater(row["unknown"], .5)
        self.assertIn("checks", [row["label"] for row in rows[4:]])

    def test_it_wants_classes_and_files(self):
        self.site("none")
        stripes = self.pictures("stripes", 700, 1)
        self.assertIn("tells no classes apart", self.daemon.error("infer", "none", "--opta", *stripes))
        self.assertIn("no site", self.daemon.error("infer", "nowhere", "--opta", *stripes))
        for more in (["--embedding"], ["--mask", "base"]):
            done = self.daemon.command("infer", "none", "--opta", *more, *stripes)
            self.assertEqual(done.returncode, 2)
        broken = self.daemon.path("broken.pgm")
        with open(broken, "wb") as file:
            file.write(b"no picture")
        self.add("none", "stripes", 1)
        # Of one class there is nothing to share out.
        alone = self.daemon.one("infer", "none", "--opta", *stripes)
        self.assertEqual((alone["label"], alone["balanced"], alone["imbalance"]), ("stripes", None, None))
        done = self.daemon.command("infer", "none", "--opta", broken, *stripes)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1))

    def test_a_feature_is_class_token_and_patches_and_comes_without_a_map(self):
        self.site("raw")
        session = self.daemon.session()
        image = classes.picture("ring", 1)
        for want in (False, True):
            embedding = session.ask(0, INFER, image, site="raw", flags=1)["embedding"]
            feature = session.ask(1, INFER, image, site="raw", flags=WANT_FEATURE)["embedding"]
            self.assertEqual(len(feature), 2 * len(embedding))
            length = math.sqrt(sum(x * x for x in embedding))
            for x, y in zip(embedding, feature):
                self.assertAlmostEqual(x / length, y, 5)
            self.assertAlmostEqual(sum(x * x for x in feature[len(embedding):]), 1, 4)
            both = session.ask(0, INFER, image, site="raw", flags=WANT_FEATURE | 4)
            self.assertEqual(both["code"], -errno.EINVAL)
            self.assertIn("in one answer", both["reason"])
            # With classes, too, where every answer has one.
            if not want:
                self.add("raw", "ring", 1)
        session.close()

    def test_features_are_judged_as_embeddings_are(self):
        self.site("judge")
        for kind in self.kinds:
            self.pictures(kind, 900, 24)
        root = self.daemon.path("judged")
        for kind in self.kinds:
            folder = os.path.join(root, kind)
            os.makedirs(folder)
            for path in self.pictures(kind, 900, 24):
                os.link(path, os.path.join(folder, os.path.basename(path)))
        plain = self.daemon.one("eval", "judge", root)
        self.assertEqual((plain["feature"], plain["episodes"], plain["ratio"]), ("class", 200, 1))
        self.assertNotIn("opta1", plain)
        row = self.daemon.one("eval", "judge", root, "--feature", "pooled", "--opta", "--episodes",
                              "20", "--ratio", "3:1")
        self.assertEqual((row["feature"], row["episodes"], row["ratio"]), ("pooled", 20, 3))
        for shots in "15":
            for name in ("opta", "guarded"):
                self.assertTrue(0 <= row[name + shots] <= 1)
                self.assertLessEqual(row[f"{name}{shots}_diff_lo"], row[f"{name}{shots}_diff"])
                self.assertLessEqual(row[f"{name}{shots}_diff"], row[f"{name}{shots}_diff_hi"])
            self.assertTrue(0 <= row["balanced" + shots] <= 1)
        both = self.daemon.one("eval", "judge", root, "--feature", "pooled", "--against",
                               "base,champion", "--episodes", "20")
        self.assertEqual(both["diff"], {"knn": 0, "shot1": 0, "shot5": 0})
        for wrong in (["--ratio", "10"], ["--ratio", "0:1"], ["--episodes", "1"], ["--feature", "x"]):
            self.assertEqual(self.daemon.command("eval", "judge", root, *wrong).returncode, 2)


if __name__ == "__main__":
    unittest.main()
