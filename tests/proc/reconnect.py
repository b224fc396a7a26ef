# SPDX-License-Identifier: Apache-2.0
"""serve is killed or replaced under load: what libkamen's callers were promised is answered, once."""

import collections
import errno
import os
import select
import time
import unittest

import harness
import kamen

N_KILLS = int(os.environ.get("KAMEN_KILLS", "5"))
N_SLOTS = 8


class Reconnect(harness.Case):
    def setUp(self):
        if not self.daemon.ctl("site", "list"):
            self.daemon.ctl("site", "create", "a")
        self.client = kamen.Client(self.daemon.path("run/data.sock"), n_slots=N_SLOTS,
                                   reconnect=harness.PATIENCE)
        self.addCleanup(self.client.close)

    def files(self, first, n):
        folder = self.images(first, n)
        files = []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                files.append(file.read())
        return files

    def fill(self, parts, image, **options):
        """Submits until every slot is taken; parts that were handed over."""
        handed = []
        for part in parts:
            try:
                self.client.submit("a", image(part), part_id=part, **options)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                break
            handed.append(part)
        return handed

    def take(self):
        """As a loop with a poll() does it."""
        results = self.client.process()
        if not results:
            select.select([self.client], [], [], self.client.next_call())
        return results

    def kill(self):
        """The next daemon knows nothing of the session: libkamen connects and sends again."""
        self.daemon.kill()
        self.daemon.spawn()

    def replace(self):
        """The next daemon has the session: libkamen gets another region of results."""
        self.daemon.ctl("restart")

    def run_through(self, end_of_life, n_parts_a_life, image, **options):
        """Keeps every slot full while the daemon goes and comes; results by part."""
        answers, next_part, last = collections.defaultdict(list), 0, 0
        for life in range(N_KILLS + 1):
            last = next_part + n_parts_a_life
            while next_part < last:
                next_part += len(self.fill(range(next_part, last), image, **options))
                if next_part < last:
                    for result in self.take():
                        answers[result.part_id].append(result)
            # Slots full, half of what was asked for on its way.
            if life < N_KILLS:
                end_of_life()
        while len(answers) < last:
            for result in self.take():
                answers[result.part_id].append(result)
        # Nothing comes a second time.
        with self.assertRaises(OSError) as raised:
            self.client.wait(timeout=1)
        self.assertEqual(raised.exception.errno, errno.EAGAIN)
        self.assertEqual([len(answers[part]) for part in range(last)], [1] * last)
        return {part: answers[part][0] for part in range(last)}

    def check_inference(self, end_of_life):
        files = self.files(500, 4)
        known = [self.client.infer("a", file, embedding=True).embedding for file in files]
        results = self.run_through(end_of_life, 20, lambda part: files[part % 4],
                                   embedding=True)
        for part, result in results.items():
            self.assertEqual((result.code, result.reason), (0, ""))
            # Images that are computed together may round otherwise.
            for one, other in zip(result.embedding, known[part % 4], strict=True):
                self.assertAlmostEqual(one, other, 4)

    def check_push(self, end_of_life, first):
        before = self.daemon.one("site", "show", "a")["images"]
        n = 10 * (N_KILLS + 1)
        files = self.files(first, n)
        results = self.run_through(end_of_life, 10, lambda part: files[part], verb=kamen.PUSH)
        for part, result in list(results.items()):
            # ingest may not be there yet: that is said, and the caller's to repeat.
            while result.code == -errno.EAGAIN:
                result = self.client.push("a", files[part])
            self.assertEqual(result.code, 0, result.reason)
            self.assertIn(result.outcome, (0, 1))
        self.assertEqual(self.daemon.one("site", "show", "a")["images"] - before, n)

    def test_every_inference_is_answered_once_over_kills(self):
        self.check_inference(self.kill)

    def test_every_inference_is_answered_once_over_restarts(self):
        self.check_inference(self.replace)

    def test_every_push_is_answered_and_kept_once_over_kills(self):
        self.check_push(self.kill, 1000)

    def test_every_push_is_answered_and_kept_once_over_restarts(self):
        self.check_push(self.replace, 5000)

    def test_a_deadline_is_kept_while_nobody_is_there(self):
        image = self.files(500, 1)[0]
        self.client.infer("a", image)
        self.daemon.kill()
        begin = time.monotonic()
        result = self.client.infer("a", image, timeout=.1)
        self.assertEqual((result.code, result.verdict, result.reason),
                         (-errno.ETIMEDOUT, "NO_VERDICT", "the daemon is gone"))
        self.assertGreaterEqual(time.monotonic() - begin, .1)
        self.daemon.start()
        self.assertEqual(self.client.infer("a", image).code, 0)

    def test_who_does_not_want_it_is_told_at_once(self):
        image = self.files(500, 1)[0]
        with kamen.Client(self.daemon.path("run/data.sock"), reconnect=0) as client:
            client.infer("a", image)
            self.daemon.kill()
            result = client.infer("a", image)
            self.assertEqual((result.code, result.reason), (-errno.ENOTCONN, "the daemon is gone"))
            with self.assertRaises(OSError) as raised:
                client.infer("a", image)
            self.assertEqual(raised.exception.errno, errno.ENOTCONN)
        self.daemon.start()


if __name__ == "__main__":
    unittest.main()
