# SPDX-License-Identifier: Apache-2.0
"""A request in steady state allocates nothing: neither the loop nor the inference thread."""

import mmap
import os
import struct
import sys
import unittest

import harness
from zmq_client import SUB, SUBSCRIBE, Socket

WARM, WINDOW, WINDOWS = 20, 50, 20
PX = 32


class Allocations(unittest.TestCase):
    def setUp(self):
        self.daemon = harness.Daemon()
        self.addCleanup(self.daemon.close)
        self.news = f"ipc://{self.daemon.path('news')}"
        self.daemon.write("kamend.conf", f"[zmq]\npublish = {self.news}\n")
        path = self.daemon.path("allocations")
        with open(path, "wb") as file:
            file.truncate(4096)
        with open(path, "r+b") as file:
            self.counts = mmap.mmap(file.fileno(), 4096)
        self.daemon.start(LD_PRELOAD=os.environ["KAMEN_ALLOC_SHIM"], KAMEN_ALLOCATIONS=path)
        self.daemon.ctl("site", "create", "a", "--set", f"input_px={PX}")
        # One that is to outlive serve: there is more to put down.
        self.session = self.daemon.session(
            hello=harness.HELLO + harness.field(3, 1))
        self.assertEqual(self.session.welcome[3] & 1, 1)
        self.addCleanup(self.session.close)

    def count(self):
        return struct.unpack_from("<QQ", self.counts)

    def ask(self, n, **how):
        for i in range(n):
            answer = self.session.ask(i % self.session.n, harness.INFER, os.urandom(3 * PX * PX),
                                      site="a", fmt=harness.RGB8, width=PX, height=PX, **how)
            self.assertEqual(answer["code"], 0, answer["reason"])

    def least(self, **how):
        """Of several windows the best: what the loop does by the clock now and then is not theirs."""
        self.ask(WARM, **how)
        least = None
        for _ in range(WINDOWS):
            before = self.count()
            self.ask(WINDOW, **how)
            after = self.count()
            grown = after[1] - before[1]
            least = grown if least is None else min(least, grown)
            if least == 0:
                break
        print(f"{how or 'plain'}: {least} in {WINDOW} requests, "
              f"oneDNN and OpenMP {(after[0] - before[0]) / WINDOW:.1f} a request", file=sys.stderr)
        return least

    def test_nothing_is_allocated_for_a_request(self):
        self.assertGreater(self.count()[1], 0, "the shim counts")
        self.assertEqual(self.least(), 0)
        self.assertGreater(self.count()[0], 0, "oneDNN's are counted, too")
        self.assertEqual(self.least(deadline_ns=2**62), 0)
        self.assertEqual(self.least(mask=1, version=0), 0)

    def test_nor_for_telling_its_subscribers(self):
        sock = Socket(SUB, self.news)
        self.addCleanup(sock.close)
        sock.option(SUBSCRIBE, b"a/")

        def heard():
            self.ask(1)
            return sock.receive(0.05)
        harness.wait_until(heard, "somebody listens")
        self.assertEqual(self.least(), 0)
        self.assertIsNotNone(sock.receive(), "and was told")


if __name__ == "__main__":
    unittest.main()
