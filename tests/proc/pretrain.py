# SPDX-License-Identifier: Apache-2.0
"""A model is learnt from a folder, its run is broken off and goes on, and a daemon serves with it."""

import json
import os
import signal
import struct
import subprocess
import unittest

from harness import BIN, Daemon, fixture

IMAGES = 24
# OpenBLAS, where it is what LAPACK is, has threads before the program begins.
ENV = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="2")


SCRATCH = ("--shape", "24,3,3", "--patch", "8")


def pretrain(folder, out, *args, start=SCRATCH, **how):
    command = [os.path.join(BIN, "kamen-pretrain"), folder, "--out", out, *start,
               "--px", "32", "--batch", "8", "--report", "1", "--json", *args]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, **how)


def run(folder, out, *args, **how):
    process = pretrain(folder, out, *args, **how)
    told, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return [json.loads(line) for line in told.splitlines()]


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def content(path):
    with open(path, "rb") as file:
        return file.read()


class Pretrain(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.folder = self.daemon.path("images")
        os.makedirs(self.folder)
        fixture("images", self.folder, 30000, IMAGES)
        self.out = self.daemon.path("learnt.safetensors")

    def serve(self):
        """The learnt model behind a site: it learns no mask here, it answers."""
        daemon = self.daemon
        daemon.model = self.out
        daemon.start()
        self.addCleanup(daemon.stop)
        self.assertEqual(os.path.basename(daemon.one("status")["model"]), "learnt.safetensors")
        site = daemon.one("site", "create", "a", "--set", "input_px=32")
        self.assertEqual(site["input_px"], 32)
        answers = [daemon.one("infer", "a", os.path.join(self.folder, f"{n}.png"), "--mask", "base",
                              "--embedding")["embedding"] for n in (30000, 30001)]
        self.assertEqual([len(a) for a in answers], [24, 24])
        self.assertNotEqual(*answers)
        self.assertTrue(all(abs(x) < 1e4 for x in answers[0]))

    def test_a_model_from_scratch_is_served(self):
        rows = run(self.folder, self.out, "--steps", "6")
        self.assertEqual([row["step"] for row in rows[:-1]], [1, 2, 3, 4, 5, 6])
        self.assertEqual(rows[-1]["images"], IMAGES)
        self.assertEqual(rows[-1]["bytes"], os.path.getsize(self.out))
        self.assertFalse(os.path.exists(self.out + ".round"))
        self.serve()

    def test_a_class_token_that_enters_late_is_served(self):
        run(self.folder, self.out, "--objective", "micm", "--steps", "3", "--recipe",
            "micm_hidden=64 n_prototypes=8 head_dim=8")
        self.assertIn(b'"class_block"', content(self.out)[:4096])
        self.serve()

    def test_what_hard_patches_taught_is_served(self):
        rows = run(self.folder, self.out, "--objective", "hpm", "--steps", "3", "--recipe",
                   "hpm_width=32 hpm_depth=1")
        self.assertEqual(rows[-1]["steps"], 3)
        self.serve()

    def test_what_was_broken_off_goes_on_to_the_same_bits(self):
        whole = self.daemon.path("whole.safetensors")
        run(self.folder, whole, "--steps", "40")
        process = pretrain(self.folder, self.out, "--steps", "40")
        first = json.loads(process.stdout.readline())
        self.assertEqual(first["step"], 1)
        process.send_signal(signal.SIGTERM)
        told, said = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 1, said)
        self.assertIn("goes on from", said)
        self.assertTrue(os.path.exists(self.out + ".round"))
        self.assertFalse(os.path.exists(self.out))
        last = [first] + [json.loads(line) for line in told.splitlines()]
        rows = run(self.folder, self.out, "--steps", "40")
        self.assertEqual(rows[0]["step"], last[-1]["step"] + 1)
        self.assertEqual(content(self.out), content(whole))

    def test_a_checkpoint_of_another_run_is_left_alone(self):
        process = pretrain(self.folder, self.out, "--steps", "40")
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
        checkpoint = content(self.out + ".round")
        other = pretrain(self.folder, self.out, "--steps", "40", "--seed", "2")
        _, said = other.communicate(timeout=300)
        self.assertEqual(other.returncode, 1)
        self.assertIn("--anew", said)
        self.assertIn("another ", said.split(".round: ")[1], "the reason, not an errno's name")
        self.assertEqual(content(self.out + ".round"), checkpoint)
        run(self.folder, self.out, "--steps", "2", "--seed", "2", "--anew")
        self.assertTrue(os.path.exists(self.out))

    def test_the_rate_of_a_masked_head_goes_by_the_steps(self):
        """As where a site learns from labels: the same recipe, so the same run goes on."""
        classes = self.classes()
        process = pretrain(classes, self.out, "--objective", "supervised", "--steps", "60")
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
        rate = f32(f32(3 / 60) * f32(f32(1.1) / f32(1.5)))
        rows = run(classes, self.out, "--objective", "supervised", "--steps", "60", "--recipe",
                   f"score_lr={rate:.9g}")
        self.assertGreater(rows[0]["step"], 1)

    def test_it_goes_on_from_a_model(self):
        first = self.daemon.path("first.safetensors")
        run(self.folder, first, "--steps", "1")
        run(self.folder, self.out, "--steps", "1", "--recipe", "weight_lr=0", start=("--from", first))
        self.assertEqual(content(self.out), content(first), "a rate of 0 changes nothing")

    def classes(self):
        folder = self.daemon.path("classes")
        for i, name in enumerate(("a", "b")):
            os.makedirs(os.path.join(folder, name))
            fixture("images", os.path.join(folder, name), 30100 + 100 * i, IMAGES)
        return folder

    def test_it_is_judged_by_what_it_has_not_learnt(self):
        folder = self.classes()
        plain = run(folder, self.out, "--steps", "1", "--part", "learn")[-1]
        judged = run(folder, self.out, "--steps", "1", "--eval")[-1]
        self.assertEqual(judged["images"], plain["images"])
        self.assertLess(judged["images"], 2 * IMAGES)
        self.assertLessEqual(judged["knn"], 1)
        for part in ("all", "held"):
            process = pretrain(folder, self.out, "--steps", "1", "--eval", "--part", part)
            _, said = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 2)
            self.assertIn(f"--part {part}", said)

    def test_before_the_first_step_it_ends_at_once(self):
        image = os.path.join(self.folder, "30000.png")
        for i in range(8000):
            os.link(image, os.path.join(self.folder, f"again{i}.png"))
        process = pretrain(self.folder, self.out, "--steps", "4")
        # From here on it decides itself what a signal does; the images alone take it a second.
        while not self.blocks(process, signal.SIGTERM):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, told), (-signal.SIGTERM, ""))
        self.assertFalse(os.path.exists(self.out + ".round"))

    @staticmethod
    def blocks(process, number):
        with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
            line = next(line for line in status if line.startswith("SigBlk:"))
        return int(line.split()[1], 16) >> (number - 1) & 1

    def test_what_makes_no_sense_is_said_in_a_line(self):
        for args, status, what in ((["--shape", "25,2,3"], 2, "--shape 25,2,3"),
                                   (["--px", "30"], 1, "30 pixels"),
                                   (["--objective", "none"], 2, "objective"),
                                   (["--recipe", "drive=x"], 1, "drive"),
                                   (["--shape", "1281,2,3"], 2, "at most 1280"),
                                   (["--from", "x"], 2, "--shape: the model of --from"),
                                   (["--class-block", "3"], 2, "--class-block")):
            process = pretrain(self.folder, self.out, "--steps", "1", *args)
            _, said = process.communicate(timeout=60)
            self.assertEqual(process.returncode, status, args)
            self.assertIn(what, said)
            self.assertEqual(len(said.splitlines()), 1, said)


if __name__ == "__main__":
    unittest.main()
