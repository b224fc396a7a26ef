# SPDX-License-Identifier: Apache-2.0
"""A site whose versions are cascades: learnt, judged, promoted, served, and still there after a restart."""

import json
import os
import unittest

import harness
from harness import fixture

STEPS = 12
N_IMAGES = 480
N_SEEDS = 10
# Large steps, so that bits flip in few; where the flaw is louder than all else, a loss that does not
# mind being wrong.
SETTINGS = {"policy": "auto", "watch_answers": 0, "experts": 2, "learn_steps": STEPS,
            "recipe": "score_lr=.2 batch=16 temperature=10"}


def furthest(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


class Cascade(harness.Case):
    def setUp(self):
        """A network with a flaw that whitening, too, takes away: what is learnt passes the gate.
        Fewer weight slots than masks: every answer switches."""
        self.flawed = harness.Daemon("[serve]\nslots = 2\n", flawed=True)
        self.addCleanup(self.flawed.close)
        self.flawed.start()
        self.folder = self.images(20000, N_IMAGES)

    def file(self, number):
        return os.path.join(self.folder, f"{20000 + number:05}.png")

    def site(self, name, **settings):
        pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.flawed.ctl("site", "create", name, *pairs)
        self.flawed.push_in_order(name, self.folder)

    def exported(self, site, version, name):
        path = self.flawed.path(name)
        self.flawed.ctl("mask", "export", site, version, path)
        return path

    def by_engine(self, path, files):
        """Of each the expert and the embedding."""
        lines = fixture("forward", self.flawed.precision(), self.flawed.model, path,
                        *files).splitlines()
        rows = [line.split() for line in lines]
        return [(int(row[0]), [float(x) for x in row[1:]]) for row in rows]

    def assert_served(self, site, version, path):
        """Many in batches, by both experts: as the engine has each alone."""
        every = [self.file(i) for i in range(N_IMAGES)]
        wanted, own = {}, ([], [])
        for file, (owner, embedding) in zip(every, self.by_engine(path, every), strict=True):
            wanted[file] = embedding
            own[owner].append(file)
        files = own[0][:12] + own[1][:12]
        for row in self.flawed.ctl("infer", site, *files, "--embedding"):
            self.assertEqual(row["mask"], version)
            self.assertIn(row["verdict"], ("OK", "NG"))
            self.assertLess(furthest(row["embedding"], wanted.pop(row["file"])), 1e-4)
        self.assertEqual(len(wanted), N_IMAGES - len(files), "every one was answered")
        return self.flawed.one("infer", site, self.file(0), "--embedding")

    def learn(self, site, *args):
        lines = self.flawed.ctl("learn", site, *args, "--wait")
        steps = [line["step"] for line in lines if "step" in line and "gate" not in line]
        self.assertEqual(steps, sorted(steps))
        return lines[-1], steps

    def learnt_site(self, name, **settings):
        """A site whose version 1 passed the gate and asks both experts, and where it was exported to.
        What is held out, and with it how the mixture divides and what the gate finds, goes by the
        order in which images arrived, and that differs: so a few seeds, a site each."""
        every = [self.file(i) for i in range(N_IMAGES)]
        for seed in range(3, 3 + N_SEEDS):
            site = f"{name}{seed}"
            self.site(site, **dict(SETTINGS, **settings))
            learnt, steps = self.learn(site, "--seed", seed)
            self.assertEqual(steps[-1], 3 * STEPS, "the dispatcher's steps and those of two experts")
            self.assertEqual(learnt["version"], 1)
            path = self.exported(site, 1, f"{site}.kcas")
            owners = {owner for owner, _ in self.by_engine(path, every)}
            if owners == {0, 1} and not learnt["gate"]["reasons"]:
                self.assertEqual(learnt["state"], "champion")
                return site, path
        return self.fail(f"none of {N_SEEDS} seeds")

    def test_a_cascade_is_learnt_judged_promoted_and_served_like_a_mask(self):
        daemon = self.flawed
        site, path = self.learnt_site("c")
        self.assertEqual(daemon.one("site", "show", site)["champion"], 1)
        frozen = daemon.one("infer", site, self.file(0), "--mask", "base", "--embedding")

        said = json.loads(daemon.command("mask", "verify", path, "--json").stdout)
        self.assertEqual((said["experts"], said["cascade_mode"]), (2, "conditional"))
        shown = daemon.one("mask", "show", site, 1)
        stored = os.path.getsize(daemon.path(f"state/sites/{site}/masks/1.kcas"))
        self.assertEqual([shown["bytes"], said["bytes"]], [stored, stored], "all of it is counted")
        self.assertFalse(os.path.exists(daemon.path(f"state/sites/{site}/masks/1.kmask")))
        self.assertAlmostEqual(said["density"], shown["density"], places=12)
        self.assertIn("experts=2 cascade=conditional", shown["recipe"])

        first = self.assert_served(site, 1, path)
        self.assertNotEqual(first["space"], frozen["space"])
        again = daemon.one("infer", site, self.file(0), "--mask", "base", "--embedding")
        self.assertEqual(again["embedding"], frozen["embedding"], "the base is what it was")

        daemon.stop()
        daemon.start()
        served = self.assert_served(site, 1, path)
        self.assertEqual(served["space"], first["space"], "the champion survives")
        self.assertLess(furthest(served["embedding"], first["embedding"]), 1e-5)
        figures = daemon.one("eval", site, self.classes(), "--against", "base,1")
        self.assertEqual(figures["n"], 48)

        self.assertTrue(daemon.one("mask", "reproduce", site, 1)["equal"])
        daemon.ctl("mask", "pin", site, 1)
        daemon.ctl("mask", "rollback", site)
        self.assertEqual(daemon.one("infer", site, self.file(0))["mask"], 0)
        daemon.ctl("mask", "promote", site, 1)
        self.assert_served(site, 1, path)

        self.elsewhere(path)
        self.refused(site, path)

    def classes(self):
        """Eight kinds of grating as folders."""
        into = self.flawed.path("classes")
        for i in range(48):
            os.makedirs(f"{into}/{i % 8}", exist_ok=True)
            os.symlink(self.file(i), f"{into}/{i % 8}/{i}.png")
        return into

    def judged(self, site, version):
        harness.wait_until(
            lambda: self.flawed.one("mask", "show", site, version)["state"] != "learning",
            "what was imported is judged")
        return self.flawed.one("mask", "show", site, version)

    def imported_site(self, path):
        """A site that a cascade was imported into and passed the gate of: a few, as they are learnt."""
        for i in range(N_SEEDS):
            site = f"d{i}"
            self.site(site, policy="shadow", shadow_share=1)
            version = self.flawed.one("mask", "import", site, path)["version"]
            if self.judged(site, version)["state"] == "candidate":
                return site, version
        return self.fail(f"none of {N_SEEDS} sites")

    def elsewhere(self, path):
        """Imported it is judged like any mask, also beside a champion of one mask."""
        daemon = self.flawed
        site, version = self.imported_site(path)
        daemon.ctl("infer", site, *[self.file(i) for i in range(40)])

        def shadow():
            return daemon.one("mask", "show", site, version)["shadow"]

        harness.wait_until(lambda: shadow() and shadow()["n"] >= 5, "the shadow has seen some")
        daemon.ctl("mask", "promote", site, version)
        self.assert_served(site, version, path)
        # A champion that is a cascade is what the next mask is compared with.
        mended = daemon.path("mended.kmask")
        fixture("mend", daemon.model, mended)
        after = daemon.one("mask", "import", site, mended)["version"]
        self.assertIsNotNone(self.judged(site, after)["gate"]["candidate"]["neighbours"])

    def refused(self, site, path):
        daemon = self.flawed
        self.assertIn("cascade", daemon.error("mask", "diff", path, path))
        self.assertIn("cascade", daemon.error("mask", "diff", site, 0, 1))
        daemon.ctl("mask", "keygen", daemon.path("key"))
        self.assertIn("cascade", daemon.error("mask", "sign", path, "--key", daemon.path("key")))
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[-100] ^= 1
        with open(daemon.path("bad.kcas"), "wb") as file:
            file.write(data)
        self.assertIn("checksum", daemon.error("mask", "import", site, daemon.path("bad.kcas")))
        self.refuses_labels(site)

    def refuses_labels(self, site):
        """At once and without a version, though there is all that labels need."""
        daemon = self.flawed
        for i in range(2):
            os.makedirs(daemon.path(f"kinds/{i}"))
            for j in range(10):
                os.symlink(self.file(i + 8 * j), daemon.path(f"kinds/{i}/{j}.png"))
        daemon.ctl("label", site, "--folders", daemon.path("kinds"))
        before = daemon.ctl("mask", "list", site)
        self.assertIn("learnt by swav", daemon.error("learn", site, "--objective", "supervised"))
        self.assertEqual(daemon.ctl("mask", "list", site), before)
        daemon.ctl("site", "create", "e", "--set", "recipe=experts=2 objective=supervised")
        self.assertIn("learnt by swav", daemon.error("learn", "e"))

    def test_all_experts_may_be_asked(self):
        site, path = self.learnt_site("u", cascade_mode="unconditional")
        said = json.loads(self.flawed.command("mask", "verify", path, "--json").stdout)
        self.assertEqual(said["cascade_mode"], "unconditional")
        self.assert_served(site, 1, path)


if __name__ == "__main__":
    unittest.main()
