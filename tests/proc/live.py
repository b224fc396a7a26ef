# SPDX-License-Identifier: Apache-2.0
"""What happens to a mask on the line: beside the champion, on trial, withdrawn; and drift."""

import os
import random
import unittest

import harness
from harness import fixture


class Live(harness.Case):
    def setUp(self):
        """A network with a flaw, and the mask that mends it: one that is sure to pass."""
        self.mended = harness.Daemon(flawed=True)
        self.addCleanup(self.mended.close)
        self.mended.start()
        self.kmask = self.mended.path("mended.kmask")
        fixture("mend", self.mended.model, self.kmask)
        self.folder = self.images(20000, 480)

    def judged(self, site):
        daemon = self.mended
        version = daemon.one("mask", "import", site, self.kmask)["version"]
        harness.wait_until(lambda: daemon.one("mask", "show", site, version)["state"] != "learning",
                           "the imported mask is judged")
        return version

    def site(self, name, **settings):
        pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.mended.ctl("site", "create", name, *pairs)
        self.mended.push_in_order(name, self.folder)
        return self.judged(name)

    def see(self, site, n, usual):
        """@return the version of every answer"""
        daemon = self.mended
        if usual:
            files = [os.path.join(self.folder, f"{20000 + i:05}.png") for i in range(n)]
            return [row["mask"] for row in daemon.ctl("infer", site, *files)]
        session, rng = daemon.session(), random.Random(7)
        answers = [session.ask(0, harness.INFER, rng.randbytes(3072), site=site, fmt=harness.RGB8,
                               width=32, height=32) for _ in range(n)]
        session.close()
        self.assertEqual([a for a in answers if a["code"] != 0], [])
        return [a["version"] for a in answers]

    def test_a_shadow_sees_what_the_champion_sees_and_answers_nothing(self):
        daemon = self.mended
        version = self.site("s", policy="shadow", shadow_share=1)
        self.assertEqual(daemon.one("mask", "show", "s", version)["state"], "candidate")
        self.assertEqual(daemon.one("site", "show", "s")["shadow"], version)
        self.assertEqual(set(self.see("s", 40, True)), {0})

        def shadow():
            return daemon.one("mask", "show", "s", version)["shadow"]

        harness.wait_until(lambda: shadow() and shadow()["n"] >= 5, "the shadow has seen some")
        seen = shadow()
        self.assertLessEqual(seen["agreed"], seen["n"])
        self.assertLess(abs(seen["cosine"]), 1)
        self.assertGreater(seen["seconds"], 0)
        self.assertTrue(0 <= seen["novelty"] <= 1)
        self.assertIn('kamen_shadow_samples_total{site="s"}', daemon.command("metrics").stdout)
        daemon.stop()
        daemon.start()
        self.assertGreaterEqual(shadow()["n"], seen["n"], "the figures are kept")
        daemon.ctl("mask", "promote", "s", version)
        self.assertFalse(daemon.one("site", "show", "s")["shadow"])
        self.assertEqual(set(self.see("s", 2, True)), {version})

    def test_a_champion_that_calls_everything_bad_is_withdrawn(self):
        daemon = self.mended
        version = self.site("t", policy="auto", watch_answers=300)
        self.assertEqual(daemon.one("mask", "show", "t", version)["state"], "champion")
        self.assertEqual(daemon.one("site", "show", "t")["watch_left"], 300)
        self.assertEqual(set(self.see("t", 30, True)), {version})
        self.assertEqual(daemon.one("site", "show", "t")["watch_left"], 270)
        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.one("site", "show", "t")["watch_left"], 270, "still on trial")

        masks = self.see("t", 120, False)
        self.assertEqual((masks[0], masks[-1]), (version, 0), masks)
        self.assertEqual(daemon.one("site", "show", "t")["champion"], 0)
        mask = daemon.one("mask", "show", "t", version)
        self.assertEqual(mask["state"], "retired")
        self.assertIn("limit", mask["withdrawn"])
        self.assertIn('kamen_rollbacks_auto_total{site="t"} 1', daemon.command("metrics").stdout)
        self.assertIn(f"version {version} is rolled back to version 0", daemon.log())

        again = self.judged("t")
        self.assertEqual(daemon.one("mask", "show", "t", again)["state"], "candidate",
                         "the same bits do not come back by themselves")
        daemon.ctl("mask", "promote", "t", again)
        self.assertEqual(daemon.one("site", "show", "t")["champion"], again)

    def test_drift_is_told_and_changes_nothing(self):
        daemon = self.mended
        version = self.site("d", policy="auto", watch_answers=0)
        usual = daemon.one("infer", "d", os.path.join(self.folder, "20000.png"))
        self.assertEqual(daemon.one("site", "show", "d")["drift"], "none")
        self.assertEqual(set(self.see("d", 200, False)), {version}, "nothing is rolled back")
        site = daemon.one("site", "show", "d")
        self.assertIn(site["drift"], ("novel", "tail"))
        self.assertGreater(site["novelty"], .7)
        self.assertLess(site["drift_answers"], 201)
        self.assertIn('kamen_drift{site="d"} 1', daemon.command("metrics").stdout)
        self.assertIn("site d: drift", daemon.log())
        after = daemon.one("infer", "d", os.path.join(self.folder, "20000.png"))
        self.assertEqual(after["novelty"], usual["novelty"], "normal is what it was")
        daemon.stop()
        daemon.start()
        again = daemon.one("site", "show", "d")
        self.assertEqual(again["drift"], site["drift"], "nobody has looked yet")
        self.assertEqual(again["answers"], site["answers"] + 1)


if __name__ == "__main__":
    unittest.main()
