# SPDX-License-Identifier: Apache-2.0
"""What one user may hold of data.sock: refused with a reason, and others have their share."""

import os
import signal
import socket
import unittest

import harness
from harness import ECHO, INFER, fields

EDQUOT, EUSERS = -122, -87


def error(session):
    """(code, text) of a refused session."""
    found = fields(session.welcome[15])
    code = found[1] & 0xFFFFFFFF
    return code - (1 << 32), found[2].decode()


class Quotas(harness.Case):
    CONFIG = "[serve]\nuid_clients = 3\nuid_bytes = 64M\nuid_depth = 4\nuid_rate = 0\n"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.ctl("site", "create", "a")

    def refused(self, quota):
        for line in self.daemon.command("metrics").stdout.splitlines():
            if line.startswith(f'kamen_quota_refused_total{{quota="{quota}"}}'):
                return float(line.split()[-1])
        self.fail(quota)

    def gone(self):
        harness.wait_until(lambda: "kamen_clients 0" in self.daemon.command("metrics").stdout,
                           "the sessions are gone")

    def test_a_session_too_many_is_told_of_its_quota(self):
        before = self.refused("uid_clients")
        sessions = [self.daemon.session() for _ in range(3)]
        code, text = error(self.daemon.session())
        self.assertEqual(code, EUSERS)
        self.assertIn("uid_clients", text)
        self.assertEqual(self.refused("uid_clients"), before + 1)
        self.assertEqual(sessions[0].ask(0, ECHO, b"x")["code"], 0, "the others go on")
        for session in sessions:
            session.close()
        self.gone()
        session = self.daemon.session()
        self.assertNotIn(15, session.welcome)
        session.close()
        self.gone()

    def test_memory_over_the_quota_is_refused_and_given_back(self):
        large = self.daemon.session(n_slots=8, slot_bytes=4 << 20)
        code, text = error(self.daemon.session(n_slots=8, slot_bytes=4 << 20))
        self.assertEqual(code, EDQUOT)
        self.assertIn("uid_bytes", text)
        small = self.daemon.session()
        self.assertEqual(small.ask(0, ECHO, b"x")["code"], 0)
        small.close()
        large.close()
        self.gone()
        large = self.daemon.session(n_slots=8, slot_bytes=4 << 20)
        self.assertNotIn(15, large.welcome)
        large.close()
        self.gone()

    def test_requests_over_the_depth_are_answered_and_the_session_goes_on(self):
        one, two = self.daemon.session(n_slots=4), self.daemon.session(n_slots=4)
        os.kill(self.daemon.role("ingest"), signal.SIGSTOP)
        try:
            for slot in range(4):
                one.submit(slot, INFER, b"P5 1 1 255\n0", site="a")
            harness.wait_until(lambda: "kamen_pending_requests 4" in
                               self.daemon.command("metrics").stdout, "four are in flight")
            answer = two.ask(0, INFER, b"P5 1 1 255\n0", site="a")
            self.assertEqual((answer["code"], answer["verdict"]), (EDQUOT, 0))
            self.assertIn("uid_depth", answer["reason"])
        finally:
            os.kill(self.daemon.role("ingest"), signal.SIGCONT)
        self.assertEqual([one.wait()["code"] for _ in range(4)], [0] * 4)
        self.assertEqual(two.ask(0, INFER, b"P5 1 1 255\n0", site="a")["code"], 0)
        self.assertGreaterEqual(self.refused("uid_depth"), 1)
        one.close()
        two.close()
        self.gone()

    def test_a_rate_set_by_a_reload_holds_at_once(self):
        daemon = self.daemon
        session = daemon.session()
        daemon.write("kamend.conf", self.CONFIG.replace("uid_rate = 0",
                                                        "uid_rate = 1\nuid_burst = 2"))
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("READY=1")
        answers = [session.ask(0, ECHO, b"x") for _ in range(50)]
        good = [a for a in answers if a["code"] == 0]
        over = [a for a in answers if a["code"] == EDQUOT]
        self.assertGreaterEqual(len(good), 2)
        self.assertEqual(len(good) + len(over), 50)
        self.assertTrue(over)
        self.assertTrue(all("uid_rate" in a["reason"] for a in over))
        daemon.write("kamend.conf", self.CONFIG)
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("READY=1")
        self.assertEqual(session.ask(0, ECHO, b"x")["code"], 0)
        session.close()
        self.gone()

    def test_silent_connections_of_one_user_have_a_bound(self):
        crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(40)]
        for sock in crowd:
            sock.connect(self.daemon.path("run/data.sock"))
        # There is room for more clients; but who comes now is hung up on without a word.
        try:
            self.assertIsNone(self.daemon.session().welcome)
        except (BrokenPipeError, ConnectionResetError):
            pass
        for sock in crowd:
            sock.close()
        self.gone()
        self.lives()


@unittest.skipIf(os.geteuid() != 0, "needs root to be somebody else")
class Others(unittest.TestCase):
    """The daemon's user and root are two that may come in."""

    UID = 54321

    def test_one_users_quota_is_not_anothers(self):
        daemon = harness.Daemon("[serve]\nuid_clients = 2\n", uid=self.UID)
        self.addCleanup(daemon.close)
        daemon.start()
        mine = [daemon.session() for _ in range(3)]
        self.assertEqual([15 in session.welcome for session in mine], [False, False, True])
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(self.UID)
            os.setuid(self.UID)
            theirs = [15 in daemon.session().welcome for _ in range(2)]
            os._exit(0 if theirs == [False, False] else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(mine[0].ask(0, ECHO, b"x")["code"], 0)
        for session in mine:
            session.close()


if __name__ == "__main__":
    unittest.main()
