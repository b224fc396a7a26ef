# SPDX-License-Identifier: Apache-2.0
"""Hardness maps: learnt by hpm, kept with the version, in answers, over images, in the replay store."""

import bisect
import os
import signal
import struct
import unittest
import zlib

import harness
from harness import INFER, RGB8

STEPS = 8
WANT_EMBEDDING, WANT_HARDNESS = 1, 4
ENODATA, EBADMSG = -61, -74
PX, PATCH = 32, 8
SETTINGS = ("--set", f"input_px={PX}", "--set", "policy=manual", "--set", f"learn_steps={STEPS}")
MOVES, STILL = "batch=8 score_lr=.3", "batch=8 score_lr=.001"


def png_pixels(path):
    """Width, height and rows of an RGB file without a palette, as its filters have them."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, size = 8, b"", None
    while at < len(data):
        n, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + n]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", data, at + 8 + n)[0]
        if kind == b"IHDR":
            size = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        at += 12 + n
    assert size[2:] == (8, 2, 0, 0, 0)
    assert len(zlib.decompress(packed)) == size[1] * (1 + 3 * size[0])
    return size[0], size[1]


class Hardness(harness.Case):
    N = 72

    def site(self, name, objective="hpm", recipe=MOVES, seed=1):
        folder = self.images(3000, self.N)
        self.daemon.ctl("site", "create", name, *SETTINGS, "--set", f"recipe={recipe}")
        self.daemon.push_in_order(name, folder)
        self.daemon.ctl("learn", name, "--objective", objective, "--seed", seed, "--wait")
        return [os.path.join(folder, file) for file in sorted(os.listdir(folder))]

    def shown(self, site, version):
        return self.daemon.one("mask", "show", site, version)

    def test_a_version_says_which_patches_are_hard(self):
        files = self.site("a")
        shown = self.shown("a", 1)
        self.assertIn("objective=hpm", shown["recipe"])
        self.assertGreater(shown["hardness_bytes"], 1000)
        for name in ("reconstruction", "ranking"):
            self.assertGreater(shown["figures"][name], 0)
        self.the_map_is_in_the_answer(files)
        self.the_map_lies_over_the_image(files)
        self.the_file_goes_with_the_version()
        self.the_hardest_are_listed(files)
        # All of it is still there.
        self.daemon.stop()
        self.daemon.start()
        self.the_map_is_in_the_answer(files)
        self.the_hardest_are_listed(files)
        self.another_objective_has_none(files)
        self.a_damaged_file_costs_its_map_alone()

    def test_where_no_bit_moves_the_maps_are_there_all_the_same(self):
        files = self.site("still", recipe=STILL)
        shown = self.shown("still", 1)
        self.assertEqual((shown["state"], shown["density"], shown["kept_step"]), ("held", 1, STEPS))
        self.assertIn("no bit has moved", " ".join(shown["gate"]["reasons"]))
        out = self.daemon.path("still.png")
        row = self.daemon.one("infer", "still", files[0], "--mask", 1, "--hardness", out)
        self.assertGreater(len({x for line in row["hardness"] for x in line}), 4)
        self.assertIn("held", self.daemon.error("mask", "promote", "still", 1))

    def test_equal_masks_of_two_sites_have_maps_of_their_own(self):
        files, maps = None, {}
        for seed, site in enumerate(("one", "two")):
            files = self.site(site, recipe=STILL, seed=seed)
            row = self.daemon.one("infer", site, files[0], "--mask", 1, "--hardness",
                                  self.daemon.path(f"{site}.png"))
            maps[site] = row["hardness"]
        self.assertEqual(*(self.shown(site, 1)["density"] for site in maps))
        self.assertNotEqual(maps["one"], maps["two"])

    def test_an_answer_without_its_map_says_nothing_else(self):
        self.daemon.ctl("site", "create", "plain", *SETTINGS)
        folder = self.images(9000, 4)
        files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        self.daemon.ctl("class", "add", "plain", "usual", *files[:2])
        self.daemon.ctl("class", "add", "plain", "other", *files[2:])
        session = self.daemon.session()
        with open(files[0], "rb") as file:
            image = file.read()
        self.assertEqual(session.ask(0, INFER, image, site="plain")["label"], "usual")
        answer = session.ask(1, INFER, image, site="plain", flags=WANT_HARDNESS | WANT_EMBEDDING)
        self.assertEqual((answer["code"], answer["verdict"], answer["label"], answer["embedding"]),
                         (ENODATA, 0, "", ()))
        session.close()
        self.assertIn('kamen_classified_total{site="plain"} 1\n',
                      self.daemon.command("metrics").stdout)

    def the_map_is_in_the_answer(self, files):
        session = self.daemon.session()
        how = {"site": "a", "mask": 1, "version": 1}
        with open(files[0], "rb") as file:
            image = file.read()
        alone = session.ask(0, INFER, image, flags=WANT_EMBEDDING, **how)
        self.assertEqual(alone["hardness"], ())
        answer = session.ask(1, INFER, image, flags=WANT_EMBEDDING | WANT_HARDNESS, **how)
        self.assertEqual(answer["code"], 0, answer["reason"])
        self.assertEqual(answer["embedding"], alone["embedding"], "to the bit")
        self.assertEqual(answer["hardness_side"], PX // PATCH)
        self.assertEqual(len(answer["hardness"]), (PX // PATCH) ** 2)
        self.assertGreater(len(set(answer["hardness"])), 4)
        only = session.ask(2, INFER, image, flags=WANT_HARDNESS, **how)
        self.assertEqual((only["embedding"], only["hardness"]), ((), answer["hardness"]))
        # In a batch each has its own, or none.
        rows = []
        for slot, path in enumerate(files[:4]):
            with open(path, "rb") as file:
                image = file.read()
            rows.append(session.submit(slot, INFER, image, flags=WANT_HARDNESS * (slot != 2), **how))
        maps = {}
        for _ in rows:
            one = session.wait()
            maps[one["slot"]] = one["hardness"]
        self.assertEqual(maps[2], ())
        for x, y in zip(maps[0], answer["hardness"], strict=True):
            self.assertAlmostEqual(x, y, delta=1e-3 * (1 + abs(y)))
        self.assertEqual(len({maps[0], maps[1], maps[3]}), 3)
        # The base was never asked what is hard.
        base = session.ask(0, INFER, image, site="a", mask=1, version=0, flags=WANT_HARDNESS)
        self.assertEqual((base["code"], base["hardness_side"]), (ENODATA, 0))
        self.assertIn("no hardness map", base["reason"])
        session.close()

    def the_map_lies_over_the_image(self, files):
        site = self.daemon.one("site", "show", "a")
        self.assertIn(site["resize"], ("crop", "squash"))
        self.assertTrue(0 < site["crop"] <= 1)
        out = self.daemon.path("map.png")
        row = self.daemon.one("infer", "a", files[0], "--mask", 1, "--hardness", out)
        self.assertEqual(row["hardness_file"], out)
        self.assertEqual([len(line) for line in row["hardness"]], [PX // PATCH] * (PX // PATCH))
        width, height = png_pixels(out)
        self.assertEqual(max(width, height), 448)
        folder = self.daemon.path("maps")
        os.makedirs(folder, exist_ok=True)
        rows = self.daemon.ctl("infer", "a", *files[:3], "--mask", 1, "--hardness", folder)
        self.assertEqual(sorted(os.listdir(folder)), [os.path.basename(file) for file in files[:3]])
        self.assertEqual(len(rows), 3)
        wrong = self.daemon.command("infer", "a", *files[:2], "--hardness", out)
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("folder", wrong.stderr)
        self.assertIn("no hardness map", self.daemon.error("infer", "a", files[0], "--hardness", out))

    def the_file_goes_with_the_version(self):
        path = self.daemon.path("a.khard")
        row = self.daemon.one("mask", "export", "a", 1, path, "--hardness")
        self.assertEqual(row["bytes"], os.path.getsize(path))
        said = self.daemon.one("mask", "verify", path)
        mask = self.daemon.path("a.kmask")
        self.daemon.ctl("mask", "export", "a", 1, mask)
        kmask = self.daemon.one("mask", "verify", mask)
        for key in ("mask_digest", "base_digest"):
            self.assertEqual(said[key], kmask[key])
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[-5] ^= 1
        with open(path, "wb") as file:
            file.write(data)
        self.assertIn(path, self.daemon.error("mask", "verify", path))

    def the_hardest_are_listed(self, files):
        rows = self.daemon.ctl("site", "hardest", "a")
        self.assertEqual(len(rows), 20)
        values = [row["hardness"] for row in rows]
        self.assertEqual(values, sorted(values, reverse=True))
        self.assertGreater(values[0], values[-1])
        self.assertEqual(len(self.daemon.ctl("site", "hardest", "a", "--count", 1000)), len(files))
        self.assertEqual(self.daemon.ctl("site", "hardest", "a", "--count", 3), rows[:3])
        self.assertEqual(self.daemon.command("site", "hardest", "a", "--count", 0).returncode, 2)

    def another_objective_has_none(self, files):
        known = self.daemon.ctl("site", "hardest", "a")
        self.daemon.ctl("learn", "a", "--objective", "swav", "--wait")
        shown = self.shown("a", 2)
        self.assertIsNone(shown["hardness_bytes"])
        self.assertEqual(shown["figures"], {})
        path = self.daemon.path("none")
        self.assertIn("no hardness", self.daemon.error("mask", "export", "a", 2, path, "--hardness"))
        self.assertIn("no hardness", self.daemon.error(
            "infer", "a", files[0], "--mask", 2, "--hardness", path))
        self.assertFalse(os.path.exists(path))
        # What the round before has told still holds for its version.
        self.assertEqual(self.daemon.ctl("site", "hardest", "a"), known)

    def a_damaged_file_costs_its_map_alone(self):
        self.daemon.stop()
        path = self.daemon.path("state/sites/a/masks/1.khard")
        with open(path, "r+b") as file:
            file.seek(-9, os.SEEK_END)
            file.write(b"damaged")
        self.daemon.start()
        session = self.daemon.session()
        how = {"site": "a", "mask": 1, "version": 1, "fmt": RGB8, "width": 32, "height": 32}
        bad = session.ask(0, INFER, bytes(3 * 32 * 32), flags=WANT_HARDNESS, **how)
        self.assertEqual(bad["code"], EBADMSG)
        self.assertIn("damaged", bad["reason"])
        self.assertEqual(session.ask(0, INFER, bytes(3 * 32 * 32), **how)["code"], 0)
        session.close()


class Replay(harness.Case):
    """What stays of a store that is full."""

    # Some 215 fill it.
    SETTINGS = (*SETTINGS, "--set", "replay_bytes=1M", "--set", "replay=hard",
                "--set", f"recipe={MOVES}")
    N = 200

    def full(self, site):
        """More came while a round held what it learns from: when that ends, half of it has to go."""
        self.daemon.ctl("site", "create", site, *self.SETTINGS)
        folder = self.images(40000, self.N)
        self.daemon.push_in_order(site, folder)
        learner = self.daemon.role("learner")
        os.kill(learner, signal.SIGSTOP)
        try:
            self.daemon.ctl("learn", site, "--objective", "hpm")
            self.daemon.push_in_order(site, self.images(50000, self.N))
            self.assertGreater(self.daemon.one("site", "show", site)["images"], self.N + 60)
        finally:
            os.kill(learner, signal.SIGCONT)
        harness.wait_until(lambda: self.daemon.one("mask", "show", site, 1)["state"] != "learning",
                           "the round")
        return folder

    def hardness(self, site, folder):
        """Of every image, as the version's maps have it, in order."""
        session, values = self.daemon.session(), []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                answer = session.ask(0, INFER, file.read(), site=site, mask=1, version=1,
                                     flags=WANT_HARDNESS)
            self.assertEqual(answer["code"], 0, answer["reason"])
            hardest = sorted(answer["hardness"])[-(len(answer["hardness"]) // 4):]
            values.append(sum(hardest) / len(hardest))
        session.close()
        return sorted(values)

    def mean_rank(self, site, values):
        """Of what is left, among what there was: 0 to 1."""
        left = [row["hardness"] for row in self.daemon.ctl("site", "hardest", site, "--count", 1000)]
        self.assertTrue(20 < len(left) < .7 * self.N, len(left))
        return sum(bisect.bisect(values, value) for value in left) / len(left) / self.N

    def test_what_is_hard_stays_of_a_full_store(self):
        folder = self.full("hard")
        # By chance .5, with a spread of .02; by these weights some .62.
        self.assertGreater(self.mean_rank("hard", self.hardness("hard", folder)), .56)

    def test_a_site_may_keep_what_is_hard(self):
        self.daemon.ctl("site", "create", "b", "--set", "replay=hard")
        self.assertEqual(self.daemon.one("site", "show", "b")["settings"]["replay"], "hard")
        error = self.daemon.error("site", "create", "c", "--set", "replay=all")
        self.assertIn("uniform", error)
        self.assertEqual(self.daemon.ctl("site", "hardest", "b"), [])


if __name__ == "__main__":
    unittest.main()
