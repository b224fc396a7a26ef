# SPDX-License-Identifier: Apache-2.0
"""What may go wrong while the daemon runs: a reload, a restart of a role, a stop, a full database."""

import os
import resource
import shutil
import signal
import sqlite3
import unittest
from unittest import mock

import harness
from flow import let_pass
from harness import Daemon, wait_until

EX_CONFIG = 78


class Case(unittest.TestCase):
    def daemon_with(self, config="", sites=None):
        daemon = Daemon(config, sites)
        self.addCleanup(daemon.close)
        return daemon

    def images(self, daemon, first, n):
        folder = daemon.path(f"images-{first}-{n}")
        os.makedirs(folder, exist_ok=True)
        harness.fixture("images", folder, first, n)
        return folder

    def reload(self, daemon):
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("RELOADING=1")
        daemon.hear("READY=1")

    def setting(self, daemon, site, key):
        return daemon.one("site", "show", site)["settings"][key]

    def learn_champion(self, daemon, site):
        """Version 1 is the site's champion; the folder of what it learnt from."""
        folder = self.images(daemon, 0, 64)
        daemon.ctl("push", site, folder)
        # Far enough for some bits to move: a round that moves none is given up.
        daemon.ctl("learn", site, "--steps", "60", "--wait")
        if daemon.one("mask", "show", site, "1")["state"] == "held":
            let_pass(daemon, site, 1)
        if daemon.one("mask", "show", site, "1")["state"] != "champion":
            daemon.ctl("mask", "promote", site, "1")
        return os.path.join(folder, "00000.png")


STRANGER = """#!/usr/bin/python3
import socket
sock = socket.socket(fileno=3)
# RoleMessage.ready = { role, major 9, minor 0 }
sock.send(bytes([0x52, 12, 0x0A, 6]) + b"ingest" + bytes([0x28, 9, 0x30, 0]))
sock.setblocking(True)
sock.recv(65536)
"""


class Roles(Case):
    def test_the_status_line_follows_the_learner(self):
        daemon = self.daemon_with()
        daemon.start()
        daemon.hear("STATUS=0 sites, 0 clients, learner idle")
        daemon.stop()

    def test_a_role_of_another_protocol_is_not_worked_with(self):
        daemon = self.daemon_with()
        program, real = daemon.path("bin/kamend"), daemon.path("kamend.real")
        os.mkdir(daemon.path("bin"))
        shutil.copy(os.path.join(harness.BIN, "kamend"), program)
        with mock.patch.object(harness, "BIN", daemon.path("bin")):
            daemon.start()
        old = daemon.role("ingest")
        os.rename(program, real)
        daemon.write("stranger", STRANGER)
        os.chmod(daemon.path("stranger"), 0o755)
        os.rename(daemon.path("stranger"), program)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: "ingest speaks protocol 9.0" in daemon.log(), "the stranger is told")
        os.rename(real, program)
        wait_until(lambda: "ingest is ready" in daemon.log().split("speaks protocol")[-1],
                   "the right one is back")
        daemon.stop()

    def test_a_percentage_keeps_the_usual_priority(self):
        for cpu, policy, nice in (("50", os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0)),
                                  ("idle", os.SCHED_IDLE, 19)):
            daemon = self.daemon_with(f"[learner]\ncpu = {cpu}\n").start()
            wait_until(lambda: daemon.one("status")["learner"] == "idle", "the learner is ready")
            learner = daemon.role("learner")
            self.assertEqual(os.sched_getscheduler(learner), policy)
            self.assertEqual(os.getpriority(os.PRIO_PROCESS, learner), nice)
            daemon.stop()

    def test_a_role_starts_again_although_the_file_is_broken(self):
        daemon = self.daemon_with("[learner]\ncpu = 50\n").start()
        old = {name: daemon.role(name) for name in ("ingest", "learner")}
        daemon.write("kamend.conf", "[learner]\ncpu = much\n")
        self.reload(daemon)
        self.assertIn("kamend.conf:2", daemon.log())
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        for name, pid in old.items():
            wait_until(lambda: daemon.role(name) != pid, f"another {name}")
        wait_until(lambda: daemon.one("status")["learner"] == "idle", "the learner is ready")
        self.assertNotIn("exit status 78", daemon.log())
        daemon.stop()

    def test_a_role_that_cannot_be_started_is_tried_again(self):
        daemon = self.daemon_with().start()
        old = daemon.role("ingest")
        limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: "cannot start ingest" in daemon.log(), "a start that fails")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: daemon.role("ingest") != old, "another ingest")
        daemon.stop()

    def test_a_stop_saves_the_round_that_runs(self):
        daemon = self.daemon_with().start()
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        daemon.ctl("push", "a", self.images(daemon, 0, 64))
        daemon.ctl("learn", "a", "--steps", "5000")
        checkpoint = daemon.path("state/sites/a/round/checkpoint")

        def written():
            return os.stat(checkpoint).st_mtime_ns if os.path.exists(checkpoint) else 0

        for _ in range(3):
            last = written()
            wait_until(lambda: written() > last, "the round goes on")
            learner = daemon.role("learner")
            # Frozen, so that no checkpoint of its routine comes between.
            os.kill(learner, signal.SIGSTOP)
            os.unlink(checkpoint)
            daemon.process.send_signal(signal.SIGTERM)
            os.kill(learner, signal.SIGCONT)
            self.assertEqual(daemon.process.wait(harness.PATIENCE), 0, daemon.log())
            self.assertTrue(os.path.exists(checkpoint), daemon.log())
            self.assertNotIn("started again", daemon.log())
            daemon.start()
            self.assertEqual(daemon.one("mask", "show", "a", "1")["state"], "learning")

    def test_a_signal_to_the_learner_ends_nothing(self):
        daemon = self.daemon_with().start()
        wait_until(lambda: daemon.one("status")["learner"] == "idle", "the learner is ready")
        learner = daemon.role("learner")
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(learner, number)
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        daemon.ctl("push", "a", self.images(daemon, 0, 64))
        daemon.ctl("learn", "a", "--steps", "60", "--wait")
        self.assertEqual(daemon.role("learner"), learner)
        daemon.stop()


class Reload(Case):
    def test_the_defaults_of_a_site_follow_the_file(self):
        daemon = self.daemon_with("[site]\nlearn_steps = 70\n").start()
        for phase in ("state.db", "audit", "model", "sites"):
            self.assertTrue(any("EXTEND_TIMEOUT_USEC" in note and phase in note
                                for note in daemon.notes.heard), f"{phase}: {daemon.notes.heard}")
        daemon.ctl("site", "create", "plain")
        daemon.ctl("site", "create", "own", "--set", "learn_steps=70")
        daemon.write("kamend.conf", "[site]\nlearn_steps = 80\n[ingest]\nmax_file_bytes = 1M\n")
        self.reload(daemon)
        self.assertEqual(self.setting(daemon, "plain", "learn_steps"), "80")
        self.assertEqual(self.setting(daemon, "own", "learn_steps"), "70",
                         "what was said is kept, also where it was the default")
        self.assertIn("[ingest] max_file_bytes", daemon.log(), "what takes a restart is named")
        daemon.ctl("site", "create", "later")
        self.assertEqual(self.setting(daemon, "later", "learn_steps"), "80")
        daemon.stop()

    def test_a_size_that_the_model_cannot_have_is_refused(self):
        daemon = self.daemon_with("", {"a": "[site]\ninput_px = 24\n"}).start()
        daemon.write("sites.d/a.conf", "[site]\n\ninput_px = 25\n")
        self.reload(daemon)
        self.assertIn("a.conf:3", daemon.log())
        self.assertEqual(daemon.one("site", "show", "a")["input_px"], 24)
        daemon.write("sites.d/a.conf", "")
        daemon.write("kamend.conf", "[site]\ninput_px = 25\n")
        self.reload(daemon)
        self.assertIn("kamend.conf:2", daemon.log())
        self.assertEqual(daemon.one("site", "show", "a")["input_px"], 24)
        daemon.stop()
        self.assertEqual(daemon.spawn().wait(harness.PATIENCE), EX_CONFIG, daemon.log())

    def test_a_champion_that_cannot_be_read_goes_on_being_served(self):
        daemon = self.daemon_with().start()
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        image = self.learn_champion(daemon, "a")
        before = daemon.one("infer", "a", image, "--embedding")
        self.assertEqual(before["mask"], 1)
        masks = daemon.path("state/sites/a/masks")
        os.rename(masks, masks + "-away")
        self.reload(daemon)
        self.assertEqual(daemon.one("infer", "a", image, "--embedding")["embedding"],
                         before["embedding"])
        # Another threshold takes another snapshot: it cannot be made, so the old one stays.
        daemon.write("kamend.conf", "[site]\nnovelty_threshold = 0.5\n")
        self.reload(daemon)
        self.assertIn("version 1 goes on being served", daemon.log())
        self.assertEqual(daemon.one("infer", "a", image)["mask"], 1)
        os.rename(masks + "-away", masks)
        daemon.ctl("mask", "rollback", "a")
        os.rename(masks, masks + "-away")
        daemon.error("mask", "promote", "a", "1")
        self.assertEqual(daemon.one("site", "show", "a")["champion"], 0, "nothing was stored")
        os.rename(masks + "-away", masks)
        daemon.ctl("mask", "promote", "a", "1")
        daemon.ctl("mask", "promote", "a", "0")
        os.rename(masks, masks + "-away")
        daemon.error("mask", "rollback", "a")
        self.assertEqual(daemon.one("site", "show", "a")["champion"], 0, "nothing was stored")
        os.rename(masks + "-away", masks)
        self.assertEqual(daemon.one("mask", "rollback", "a")["version"], 1)
        self.assertEqual(daemon.one("infer", "a", image)["mask"], 1)
        daemon.stop()

    def test_a_mask_of_another_preprocessing_is_not_promoted(self):
        daemon = self.daemon_with("", {"a": "[site]\npolicy = manual\ninput_px = 32\n"}).start()
        self.learn_champion(daemon, "a")
        daemon.write("sites.d/a.conf", "[site]\npolicy = manual\ninput_px = 24\n")
        self.reload(daemon)
        self.assertIn("of another preprocessing", daemon.log())
        daemon.ctl("mask", "rollback", "a")
        self.assertIn("judged under preprocessing", daemon.error("mask", "promote", "a", "1"))
        self.assertEqual(daemon.one("site", "show", "a")["champion"], 0)
        daemon.write("sites.d/a.conf", "[site]\npolicy = manual\ninput_px = 32\n")
        self.reload(daemon)
        self.assertEqual(daemon.one("mask", "promote", "a", "1")["state"], "champion")
        daemon.stop()


class Database(Case):
    def test_a_failure_that_cannot_be_stored_is_stored_later(self):
        daemon = self.daemon_with().start()
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        daemon.ctl("push", "a", self.images(daemon, 0, 64))
        learner = daemon.role("learner")
        os.kill(learner, signal.SIGSTOP)
        daemon.ctl("learn", "a", "--steps", "60")
        with sqlite3.connect(daemon.path("state/state.db"), isolation_level=None) as db:
            db.execute("BEGIN IMMEDIATE")
            os.kill(learner, signal.SIGCONT)
            wait_until(lambda: "cannot store" in daemon.log(), "a round that cannot be stored")
            self.assertEqual(daemon.one("mask", "show", "a", "1")["state"], "learning")
            db.execute("ROLLBACK")
        db.close()
        wait_until(lambda: daemon.one("mask", "show", "a", "1")["state"] == "failed",
                   "the failure is stored")
        self.assertEqual(daemon.one("learn", "a", "--steps", "60", "--wait")["version"], 2)
        daemon.stop()

    def test_the_audit_chain_is_told_and_checked(self):
        daemon = self.daemon_with().start()
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        self.learn_champion(daemon, "a")
        self.assertRegex(daemon.log(), "champion now.*\n.*audit: [0-9]+ rows, head [0-9a-f]{64}")
        daemon.stop()
        self.assertNotIn("does not hold", daemon.log())
        with sqlite3.connect(daemon.path("state/state.db")) as db:
            db.execute("UPDATE audit SET detail = 'nothing' WHERE what = 'mask.promote'")
        db.close()
        daemon.start()
        self.assertEqual(daemon.log().count("the audit chain does not hold"), 1)
        self.assertEqual(daemon.one("site", "show", "a")["champion"], 1, "serving goes on")
        daemon.stop()


if __name__ == "__main__":
    unittest.main()
