# SPDX-License-Identifier: Apache-2.0
"""The Python module against a daemon, and against what a client of its own bytes is answered."""

import errno
import os
import select
import unittest

import harness
import kamen


def png_of(path):
    with open(path, "rb") as file:
        return file.read()


def pixels(step=1):
    """(32, 32, 3), and a view of it that is not contiguous."""
    data = bytes((7 * i) % 251 for i in range(32 * 32 * 3 * step))
    return memoryview(data).cast("B", (32 * step, 32, 3))[::step]


class Module(harness.Case):
    def setUp(self):
        if not self.daemon.ctl("site", "list"):
            self.daemon.ctl("site", "create", "a")
        self.client = kamen.Client(self.daemon.path("run/data.sock"))
        self.addCleanup(self.client.close)
        self.file = png_of(os.path.join(self.images(500, 1), "00500.png"))

    def test_an_answer_is_the_protocols(self):
        result = self.client.infer("a", self.file, embedding=True, trigger_id=1, part_id=2**63,
                                   capture_us=3, encoder=4, timeout=10**6)
        session = self.daemon.session()
        own = session.ask(0, harness.INFER, self.file, site="a", flags=1)
        session.close()
        self.assertEqual(result.code, 0)
        self.assertEqual(result.verdict, "UNKNOWN")
        self.assertEqual(list(result.embedding), list(own["embedding"]))
        self.assertEqual(result.space.hex(), own["space"])
        self.assertEqual((result.trigger_id, result.part_id, result.capture_us, result.encoder),
                         (1, 2**63, 3, 4))
        self.assertGreater(result.deadline_ns, 10**15)
        self.assertGreater(result.compute_ns, 0)
        self.assertEqual(len(self.client.infer("a", self.file).embedding), 0)

    def test_a_hardness_map_that_is_not_there_is_told(self):
        result = self.client.infer("a", self.file, embedding=True, hardness=True)
        self.assertEqual(result.code, -errno.ENODATA)
        self.assertIn("no hardness map", result.reason)
        self.assertEqual((len(result.hardness), result.hardness_side), (0, 0))

    def test_arrays_are_pixels(self):
        rgb = pixels()
        one = self.client.infer("a", rgb, embedding=True)
        turned = bytearray(rgb.tobytes())
        turned[0::3], turned[2::3] = turned[2::3], turned[0::3]
        bgr = memoryview(turned).cast("B", (32, 32, 3))
        two = self.client.infer("a", bgr, layout=kamen.BGR8, embedding=True)
        self.assertEqual(one.embedding, two.embedding)
        apart = pixels(2)
        self.assertFalse(apart.c_contiguous)
        dense = memoryview(apart.tobytes()).cast("B", (32, 32, 3))
        self.assertEqual(self.client.infer("a", apart, embedding=True).embedding,
                         self.client.infer("a", dense, embedding=True).embedding)
        grey = memoryview(bytes(1024)).cast("B", (32, 32))
        self.assertEqual(self.client.infer("a", grey).code, 0)
        for wrong in (grey.cast("B").cast("b", (32, 32)), memoryview(bytes(64)).cast("B", (4, 4, 4))):
            self.assertRaises(ValueError, self.client.submit, "a", wrong)
        self.assertRaises(ValueError, self.client.submit, "a", grey, layout=kamen.RGB8)

    def test_numpy_arrays_are_taken(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("there is no numpy")
        image = numpy.frombuffer(pixels().tobytes(), numpy.uint8).reshape(32, 32, 3)
        result = self.client.infer("a", image[:, ::-1, :], embedding=True)
        self.assertEqual(numpy.frombuffer(result.embedding, numpy.float32).shape, (48,))

    def test_several_are_in_flight_and_a_poller_takes_them(self):
        numbers = {self.client.submit("a", self.file, part_id=i) for i in range(8)}
        with self.assertRaises(OSError) as raised:
            self.client.submit("a", self.file)
        self.assertEqual(raised.exception.errno, errno.EBUSY)
        self.assertIsNone(self.client.next_call())
        seen = set()
        while numbers - seen:
            self.assertTrue(select.select([self.client], [], [], harness.PATIENCE)[0])
            seen |= {result.id for result in self.client.process()}
        self.assertEqual(seen, numbers)
        with self.assertRaises(OSError) as raised:
            self.client.wait()
        self.assertEqual(raised.exception.errno, errno.EAGAIN)

    def test_what_is_refused_says_why(self):
        self.assertEqual(self.client.infer("none", self.file).code, -errno.ENOENT)
        bad = self.client.infer("a", b"no image")
        self.assertEqual((bad.code, bad.verdict), (-errno.EBADMSG, "NO_VERDICT"))
        self.assertTrue(bad.reason)
        late = self.client.infer("a", self.file, timeout=0)
        self.assertEqual((late.code, late.reason), (-errno.ETIMEDOUT, "deadline"))
        self.assertEqual(self.client.push("a", self.file).outcome, 0)
        self.assertEqual(self.client.push("a", self.file).outcome, 1)
        self.assertRaises(FileNotFoundError, kamen.Client, "/nonexistent/data.sock")
        with self.assertRaises(OSError):
            self.client.infer("a", bytes(5 << 20))
        self.assertEqual(self.client.infer("a", self.file).code, 0)
        self.client.close()
        self.client.close()
        self.assertRaises(ValueError, self.client.infer, "a", self.file)


if __name__ == "__main__":
    unittest.main()
