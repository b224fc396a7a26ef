# SPDX-License-Identifier: Apache-2.0
"""A loop that looks before it sleeps: nobody needs to ring meanwhile, and then it does sleep."""

import json
import os
import struct
import subprocess
import time
import unittest

import harness

SPIN_US = 50000
DAEMON_AWAKE, CLIENT_AWAKE = 132, 68


def ticks_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return sum(int(x) for x in file.read().rsplit(")", 1)[1].split()[11:13])


class Quiet(harness.Session):
    """Rings when the daemon does not look, as the protocol has it; counts its own bells."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.n_rung = self.n_quiet = 0

    def is_looked_at(self):
        return struct.unpack_from("<I", self.results, DAEMON_AWAKE)[0] != 0

    def publish(self, head):
        self.frames[64:68] = struct.pack("<I", head & 0xFFFFFFFF)
        if self.is_looked_at():
            self.n_quiet += 1
        else:
            self.n_rung += 1
            os.write(self.bell, struct.pack("<Q", 1))


@unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one CPU: nobody looks")
class Spin(harness.Case):
    CONFIG = f"[serve]\nspin_us = {SPIN_US}\n"

    def session(self):
        session = Quiet(self.daemon.path("run/data.sock"))
        self.addCleanup(session.close)
        return session

    def rests(self):
        """No session is looked at and no time goes by."""
        before = ticks_of(self.daemon.process.pid)
        time.sleep(1)
        return ticks_of(self.daemon.process.pid) - before <= 1

    def test_no_submission_is_missed(self):
        session = self.session()
        for i in range(2000):
            data = bytes([i & 255]) * 64
            self.assertEqual(session.ask(i % 4, harness.ECHO, data)["code"], 0)
        print(f"rung {session.n_rung}, not rung {session.n_quiet}")
        self.assertGreater(session.n_quiet, 0)

    def test_it_sleeps_when_nobody_asks(self):
        session = self.session()
        self.assertEqual(session.ask(0, harness.ECHO, b"x")["code"], 0)
        harness.wait_until(lambda: not session.is_looked_at(), "the loop sleeps")
        harness.wait_until(self.rests, "no CPU is used")
        self.assertEqual(session.ask(0, harness.ECHO, b"y")["code"], 0)

    def test_who_lies_about_looking_harms_itself_alone(self):
        liar, honest = self.session(), self.session()
        liar.frames[CLIENT_AWAKE:CLIENT_AWAKE + 4] = struct.pack("<I", 7)
        liar.submit(0, harness.ECHO, b"x")
        for _ in range(50):
            self.assertEqual(honest.ask(0, harness.ECHO, b"x")["code"], 0)
        # Its answer is there; only its bell is not.
        self.assertEqual(liar.wait()["code"], 0)
        liar.sock.setblocking(False)
        with self.assertRaises(BlockingIOError):
            liar.sock.recv(1)
        harness.wait_until(self.rests, "no CPU is used")

    def test_inference_goes_on_as_ever(self):
        self.daemon.ctl("site", "create", "a")
        session = self.session()
        for i in range(20):
            answer = session.ask(0, harness.INFER, bytes(32 * 32), site="a", fmt=harness.MONO8,
                                 width=32, height=32)
            self.assertEqual(answer["code"], 0, answer["reason"])
        harness.wait_until(self.rests, "no CPU is used")

    def test_sessions_that_go_are_looked_at_no_more(self):
        for _ in range(40):
            session = harness.Session(self.daemon.path("run/data.sock"))
            session.ask(0, harness.ECHO, b"x")
            session.close()
        self.lives()
        self.assertEqual(self.session().ask(0, harness.ECHO, b"x")["code"], 0)


class Overload(unittest.TestCase):
    """Twice what can be computed: everybody is answered once, and about in time."""

    def test_every_request_is_answered_once_by_its_deadline(self):
        env = {k: v for k, v in os.environ.items() if k != "KAMEN_RUNTIME"}
        done = subprocess.run(
            [os.path.join(harness.BIN, "kamen-bench"), "serve", "--random", "vit_demo",
             "--deadline-ms", "20", "--overload", "2", "--seconds", "3", "--json"],
            capture_output=True, text=True, env=env, timeout=harness.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        row = json.loads(done.stdout)
        print({k: v for k, v in row.items() if "late" in k or "answered" in k or "_per_s" in k})
        self.assertEqual((row["lost"], row["doubled"], row["wrong"]), (0, 0, 0))
        self.assertEqual(row["answered"], row["completed"] + row["refused"])
        # Loosely: whoever tests has other things to do as well.
        self.assertLess(row["late_ms_p50"], 50)
        self.assertLess(row["late_ms_worst"], max(500, 10 * row["timer_late_ms_worst"]))


if __name__ == "__main__":
    unittest.main()
