# SPDX-License-Identifier: Apache-2.0
"""Several threads that take batches of one scheduler: one answer to each request, and the right one."""

import os
import re
import time
import unittest

import harness
from harness import Daemon, fixture, wait_until

EX_CONFIG = 78
N_IMAGES, N_SITES, N_SESSIONS, ROUNDS = 48, 3, 4, 40
PX = 32


class Workers(unittest.TestCase):
    def daemon_with(self, settings):
        daemon = Daemon(settings, flawed=True)
        self.addCleanup(daemon.close)
        return daemon

    def sites(self, daemon):
        """Each with a mask: every change of site is a change of weights. -> versions"""
        folder = daemon.path("images")
        os.makedirs(folder)
        fixture("images", folder, 20000, N_IMAGES)
        mended = daemon.path("mended.kmask")
        fixture("mend", daemon.model, mended)
        for i in range(N_SITES):
            daemon.ctl("site", "create", f"s{i}", "--set", "policy=manual")
            daemon.ctl("push", f"s{i}", folder)
        versions = [0] + [daemon.one("mask", "import", f"s{i}", mended)["version"]
                          for i in range(1, N_SITES)]
        for i in range(1, N_SITES):
            wait_until(lambda i=i: daemon.one("mask", "show", f"s{i}", versions[i])["state"] !=
                       "learning", "the mask is judged")
        return versions

    def answers(self, settings):
        daemon = self.daemon_with(settings).start()
        versions = self.sites(daemon)
        sessions = [daemon.session() for _ in range(N_SESSIONS)]
        found = {}
        for turn in range(ROUNDS):
            asked = []
            for k, session in enumerate(sessions):
                for slot in range(session.n):
                    site = (turn + k + slot) % N_SITES
                    image = (turn * session.n + slot) % 5
                    pixels = bytes((7 * image + 3 * j) % 256 for j in range(3 * PX * PX))
                    # Otherwise only the base's site is asked for its base.
                    ident = session.submit(slot, harness.INFER, pixels, site=f"s{site}",
                                           fmt=harness.RGB8, width=PX, height=PX, flags=1,
                                           mask=1, version=versions[site])
                    asked.append((session, ident, site, image))
            got = {(session, answer["id"]): answer for session in sessions
                   for answer in [session.wait() for _ in range(session.n)]}
            self.assertEqual(len(got), len(asked), "each exactly once")
            for session, ident, site, image in asked:
                answer = got[session, ident]
                self.assertEqual((answer["code"], answer["version"]), (0, versions[site]),
                                 answer["reason"])
                key = (site > 0, image)
                found.setdefault(key, answer["embedding"])
                self.assertLess(max(abs(a - b) for a, b in
                                    zip(answer["embedding"], found[key], strict=True)), 1e-4)
        for session in sessions:
            session.close()
        threads = self.threads(daemon)
        text = daemon.command("metrics").stdout
        daemon.stop()
        images = int(re.search(r"^kamen_images_total (\d+)$", text, re.M)[1])
        self.assertGreaterEqual(images, ROUNDS * N_SESSIONS * 4)
        return found, threads

    def threads(self, daemon):
        """Of the serving process, by name -> CPUs that each may use."""
        found = []
        for tid in os.listdir(f"/proc/{daemon.process.pid}/task"):
            with open(f"/proc/{daemon.process.pid}/task/{tid}/comm", encoding="ascii") as file:
                if file.read().strip() == "inference":
                    found.append(frozenset(os.sched_getaffinity(int(tid))))
        return found

    def test_two_answer_as_one_does(self):
        one, threads = self.answers("[serve]\nprecision = f32\n")
        self.assertEqual(len(threads), 1)
        two, threads = self.answers("[serve]\nprecision = f32\nworkers = 2\nthreads = 4\n"
                                    "batch_delay_us = 500\n")
        self.assertEqual(one.keys(), two.keys())
        for key, embedding in one.items():
            self.assertLess(max(abs(a - b) for a, b in zip(embedding, two[key], strict=True)), 1e-4)
        # Their OpenMP threads carry the name, too.
        shares = set(threads)
        cpus = os.sched_getaffinity(0)
        self.assertEqual(len(shares), min(2, len(cpus)))
        self.assertEqual(frozenset().union(*shares), cpus)

    def test_late_forwards_in_every_worker_leave_room_for_the_next(self):
        daemon = self.daemon_with("[serve]\nworkers = 2\nthreads = 2\n").start()
        px = 640  # so large that a forward takes far longer than the deadline
        daemon.ctl("site", "create", "large", "--set", f"input_px={px}")
        session = daemon.session(n_slots=1, slot_bytes=4 * px * px)
        pixels = bytes(3 * px * px)
        for turn in range(3):
            deadline = 0 if turn == 2 else time.monotonic_ns() + 30 * 10**6
            session.submit(0, harness.INFER, pixels, site="large", fmt=harness.RGB8, width=px,
                           height=px, deadline_ns=deadline)
            answer = session.wait()
            if turn == 2:
                self.assertEqual(answer["code"], 0, answer["reason"])
        session.close()

    def test_cpus_that_are_not_there_are_told_of(self):
        cpu = min(os.sched_getaffinity(0))
        daemon = self.daemon_with("[serve]\ncpus = 1023\n")
        self.assertEqual(daemon.spawn().wait(harness.PATIENCE), EX_CONFIG)
        self.assertIn("[serve] cpus = 1023: this process may use none of them", daemon.log())
        daemon.write("kamend.conf", f"[serve]\ncpus = {cpu}\n[learner]\ncpus = {cpu}\n")
        daemon.start()
        self.assertEqual(set(self.threads(daemon)), {frozenset([cpu])})
        wait_until(lambda: os.sched_getaffinity(daemon.role("learner")) == {cpu}, "its CPU")
        daemon.stop()
        daemon.write("kamend.conf", "[serve]\ncpus = 3-1\n")
        self.assertEqual(daemon.spawn().wait(harness.PATIENCE), EX_CONFIG)


if __name__ == "__main__":
    unittest.main()
