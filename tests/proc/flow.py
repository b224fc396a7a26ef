# SPDX-License-Identifier: Apache-2.0
"""The main job's mechanics: images, a round, the gate, a champion, answers."""

import os
import re
import socket
import sqlite3
import struct
import unittest

import harness
from harness import field, fields, fixture


def embedding_by_engine(daemon, mask, image):
    return [float(x) for x in fixture("forward", daemon.precision(), daemon.model, mask, image).split()]


def furthest(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


def let_pass(daemon, site, version):
    """An untrained model gains nothing, so the gate may hold what it learnt. What comes after the
    gate is tested all the same: the row is changed behind the daemon's back, while it is down."""
    daemon.stop()
    with sqlite3.connect(daemon.path("state/state.db")) as db:
        table = "version" if db.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'version'").fetchone() else "versions"
        n = db.execute(f"UPDATE {table} SET state = 'candidate' WHERE state = 'held' AND "
                       "version = ?", (version,)).rowcount
        assert n == 1, site
    db.close()
    daemon.start()


def resumed(daemon, site, version):
    """The steps that a killed learner's successors went on from."""
    return [int(step) for step in re.findall(
        f"site {site}: version {version} goes on after step ([0-9]+)", daemon.log())]


class Flow(harness.Case):
    def test_images_become_a_mask_and_the_mask_is_served(self):
        daemon = self.daemon
        folder = self.images(0, 160)
        image = os.path.join(folder, "00003.png")
        daemon.ctl("site", "create", "a", "--set", "policy=manual")
        self.assertEqual(daemon.one("push", "a", folder),
                         {"site": "a", "accepted": 160, "rejected": 0, "duplicates": 0})
        self.assertEqual(daemon.one("push", "a", folder)["duplicates"], 160)

        frozen = daemon.one("infer", "a", image, "--embedding")
        self.assertEqual((frozen["mask"], frozen["verdict"]), (0, "UNKNOWN"))
        self.assertLess(furthest(frozen["embedding"], embedding_by_engine(daemon, "-", image)), 1e-5)

        rows = daemon.ctl("learn", "a", "--steps", "60", "--seed", "2", "--wait")
        learnt, losses = rows[-1], [row["loss_ratio"] for row in rows[:-1]]
        self.assertEqual((learnt["version"], learnt["steps"]), (1, 60))
        self.assertLess(min(losses[len(losses) // 2:]), losses[0], "the loss falls")
        self.assertLess(learnt["density"], 1, "bits move")
        self.assertEqual(learnt["gate"]["frozen"]["n"], learnt["gate"]["candidate"]["n"])
        self.assertEqual(learnt["gate"]["passed"], not learnt["gate"]["reasons"])
        if not learnt["gate"]["passed"]:
            self.assertIn("held", daemon.error("mask", "promote", "a", "1"))
            let_pass(daemon, "a", 1)

        self.assertEqual(daemon.one("mask", "promote", "a", "1")["state"], "champion")
        served = daemon.one("infer", "a", image, "--embedding")
        self.assertEqual(served["mask"], 1)
        self.assertNotEqual(served["space"], frozen["space"])
        self.assertIn(served["verdict"], ("OK", "NG"))
        self.one_mask_at_a_time()
        kmask = daemon.path("1.kmask")
        daemon.ctl("mask", "export", "a", "1", kmask)
        self.assertLess(furthest(served["embedding"], embedding_by_engine(daemon, kmask, image)), 1e-5)
        self.assertGreater(furthest(served["embedding"], frozen["embedding"]), 1e-3)

        session = daemon.session()
        raw = dict(site="a", fmt=harness.RGB8, width=32, height=32, flags=3)
        base = session.ask(0, harness.INFER, bytes(3072), space=bytes.fromhex(frozen["space"]), **raw)
        self.assertEqual((base["code"], base["version"]), (0, 0), "the predecessor serves its space")
        self.assertEqual(base["space"], frozen["space"])
        other = session.ask(0, harness.INFER, bytes(3072), space=b"?" * 32, **raw)
        self.assertEqual((other["code"], other["space"]), (-116, served["space"]))
        self.assertIn("another space", other["reason"])
        failed = session.ask(0, harness.INFER, bytes(3072), px=31, **dict(raw, flags=0))
        self.assertEqual((failed["code"], failed["space"]), (-22, served["space"]))
        session.close()

        again = daemon.one("infer", "a", image, "--mask", "base", "--embedding")
        self.assertEqual((again["mask"], again["space"]), (0, frozen["space"]))
        self.assertEqual(again["embedding"], frozen["embedding"], "bit for bit")

        daemon.stop()
        daemon.start()
        self.assertEqual(daemon.one("infer", "a", image)["mask"], 1, "the champion survives")

        session = daemon.session()
        pixels = bytes(range(256)) * 12
        raw = dict(site="a", fmt=harness.RGB8, width=32, height=32, flags=1)
        before = session.ask(0, harness.INFER, pixels, **raw)
        daemon.ctl("mask", "rollback", "a")
        after = session.ask(0, harness.INFER, pixels, **raw)
        self.assertEqual((before["version"], after["version"]), (1, 0), "before the next batch")
        pinned = session.ask(0, harness.INFER, pixels, mask=1, version=1, **raw)
        self.assertEqual(pinned["embedding"], before["embedding"], "the predecessor stays servable")
        stale = session.ask(0, harness.INFER, pixels, space=bytes.fromhex(before["space"]),
                            site="a", fmt=harness.RGB8, width=32, height=32, flags=2)
        self.assertEqual(stale["code"], -116, stale["reason"])
        session.close()
        self.assertEqual(daemon.one("site", "show", "a")["champion"], 0)

        text = daemon.command("metrics").stdout
        self.assertIn('kamen_requests_total{site="a"}', text)
        self.assertIn("kamen_compute_seconds_bucket", text)
        imported = daemon.one("mask", "import", "a", kmask)
        self.assertEqual(imported["version"], 2)
        harness.wait_until(lambda: daemon.one("mask", "show", "a", "2")["state"] != "learning",
                           "the imported mask is judged")
        self.assertLess(abs(daemon.one("mask", "show", "a", "2")["density"] - learnt["density"]),
                        1e-12)

    def one_mask_at_a_time(self):
        sock = self.daemon.control()
        sock.send(field(1, 1) + b"\x12\x04" + field(1, 1) + field(2, 0))
        sock.recv(65536)
        named = b"\x0a\x01a" + field(2, 1)
        for ident in (2, 3):
            sock.send(field(1, ident) + b"\xa2\x01" + bytes([len(named)]) + named)
        self.daemon.one("status")
        data, fds, _, _ = socket.recv_fds(sock, 65536, 4)
        self.assertEqual((fields(data)[1], len(fds)), (2, 1))
        os.close(fds[0])
        self.assertIn(b"one mask at a time", fields(sock.recv(65536))[3])
        sock.close()

    def test_what_the_gate_says_of_a_learnt_mask_decides(self):
        """The network is untrained and gains little: most seeds are held, and nothing changes."""
        daemon = self.daemon
        folder = self.images(20000, 480)
        image = os.path.join(folder, "20000.png")
        daemon.ctl("site", "create", "self", "--set", "policy=auto")
        daemon.ctl("push", "self", folder)
        champion = 0
        for seed in range(1, 9):
            learnt = daemon.ctl("learn", "self", "--steps", "40", "--seed", seed, "--wait")[-1]
            gate = learnt["gate"]
            self.assertEqual(learnt["state"], "champion" if gate["passed"] else "held")
            self.assertEqual(gate["passed"], not gate["reasons"])
            champion = learnt["version"] if gate["passed"] else champion
            self.assertEqual(daemon.one("site", "show", "self")["champion"], champion)
            self.assertEqual(daemon.one("infer", "self", image)["mask"], champion)

    def test_what_passes_the_gate_is_served_without_being_asked(self):
        """A network with a flaw, and the mask that mends it: one that is sure to pass."""
        daemon = harness.Daemon(flawed=True)
        self.addCleanup(daemon.close)
        daemon.start()
        folder = self.images(20000, 480)
        image, mended = os.path.join(folder, "20000.png"), daemon.path("mended.kmask")
        fixture("mend", daemon.model, mended)
        daemon.ctl("site", "create", "self", "--set", "policy=auto")
        daemon.push_in_order("self", folder)
        version = daemon.one("mask", "import", "self", mended)["version"]
        harness.wait_until(lambda: daemon.one("mask", "show", "self", version)["state"] != "learning",
                           "the imported mask is judged")
        mask = daemon.one("mask", "show", "self", version)
        gate = mask["gate"]
        frozen, candidate = gate["frozen"], gate["candidate"]
        self.assertEqual((gate["passed"], gate["reasons"]), (True, []))
        self.assertGreaterEqual(frozen["n"], 16)
        self.assertGreater(candidate["margin"] - 2.5 * candidate["margin_error"], frozen["margin"])
        self.assertGreaterEqual(candidate["retrieval"] + 2.6 * candidate["retrieval_error"],
                                frozen["retrieval"])
        self.assertEqual(mask["state"], "champion")
        self.assertEqual(daemon.one("site", "show", "self")["champion"], version)
        served = daemon.one("infer", "self", image, "--embedding")
        self.assertEqual(served["mask"], version)
        self.assertLess(furthest(served["embedding"], embedding_by_engine(daemon, mended, image)), 1e-5)
        daemon.ctl("mask", "rollback", "self")
        self.assertEqual(daemon.one("infer", "self", image)["mask"], 0)

    def test_the_same_seed_gives_the_same_bits_whether_killed_or_not(self):
        daemon = self.daemon
        daemon.ctl("site", "create", "twin", "--set", "policy=manual")
        daemon.ctl("push", "twin", self.images(1000, 96))
        first = daemon.one("learn", "twin", "--steps", "60", "--seed", "5", "--wait")
        control = daemon.one("learn", "twin", "--steps", "60", "--seed", "5")
        self.assertEqual((control["version"], control["state"]), (2, "queued"))
        for _ in range(2):
            pid = daemon.role("learner")
            os.kill(pid, 9)
            # Killed once each: the daemon has to have seen the end of one before the next.
            harness.wait_until(lambda: daemon.role("learner") != pid, "another learner")

        checkpoint = daemon.path("state/sites/twin/round/checkpoint")
        for n_kills in range(2):
            harness.wait_until(lambda: os.path.exists(checkpoint), "a checkpoint")
            os.kill(daemon.role("learner"), 9)
            # It is back at the same work, and not from the first step.
            harness.wait_until(lambda: len(resumed(daemon, "twin", 2)) > n_kills,
                               "the learner goes on")
        self.assertTrue(all(step >= 5 for step in resumed(daemon, "twin", 2)), daemon.log())
        harness.wait_until(lambda: daemon.one("mask", "show", "twin", "2")["state"] != "learning",
                           "the round ends in spite of it")
        one, two = daemon.path("one.kmask"), daemon.path("two.kmask")
        daemon.ctl("mask", "export", "twin", "1", one)
        daemon.ctl("mask", "export", "twin", "2", two)
        with open(one, "rb") as a, open(two, "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertEqual(first["version"], 1)

    def test_a_spooled_file_is_done_once_it_is_accepted(self):
        daemon = self.daemon
        daemon.ctl("site", "create", "s")
        folder = self.images(2000, 40)
        with open(os.path.join(folder, "broken.png"), "wb") as file:
            file.write(b"no image at all")
        into = self.spool("s", folder)
        harness.wait_until(lambda: daemon.one("site", "show", "s")["images"] == 40, "40 images")
        harness.wait_until(lambda: len(os.listdir(into + "/done")) == 40, "40 files in done/")
        harness.wait_until(lambda: os.path.exists(into + "/bad/broken.png"), "one in bad/")
        self.assertEqual(daemon.one("site", "show", "s")["rejected"], 1)
        self.spool("s", folder)
        harness.wait_until(lambda: daemon.one("site", "show", "s")["duplicates"] == 40,
                           "the same again are duplicates")
        self.assertEqual(daemon.one("site", "show", "s")["images"], 40)

    def test_what_a_round_held_goes_when_it_ends(self):
        """Images that came meanwhile are over the bound as long as the round needs the older ones."""
        daemon = self.daemon
        daemon.ctl("site", "create", "full", "--set", "replay_bytes=1M")
        daemon.ctl("push", "full", self.images(40000, 190))
        version = daemon.one("learn", "full", "--steps", "100")["version"]
        daemon.ctl("push", "full", self.images(41000, 40))
        show = daemon.one("site", "show", "full")
        if show["state"] == "learning":
            self.assertGreater(show["replay_bytes"], 1 << 20)
        harness.wait_until(lambda: daemon.one("mask", "show", "full", version)["state"] !=
                           "learning", "the round ends")
        self.assertLessEqual(daemon.one("site", "show", "full")["replay_bytes"], 1 << 20)

    def test_echo_reads_every_byte_and_answers_at_once(self):
        session = self.daemon.session(n_slots=8)
        sums = set()
        for i in range(300):
            answer = session.ask(i % 8, harness.ECHO, struct.pack("<I", i) * 1000)
            self.assertEqual(answer["code"], 0)
            sums.add(answer["checksum"])
        self.assertEqual(len(sums), 300)
        session.close()


if __name__ == "__main__":
    unittest.main()
