# SPDX-License-Identifier: Apache-2.0
"""Results and events for subscribers: of every transport, by site, and never in serving's way."""

import os
import select
import signal
import socket
import unittest

import harness
from harness import ECHO, INFER, field, fields, wait_until
from zmq_client import (DEALER, PUSH_SOCKET, SUB, SUBSCRIBE, XSUB, Socket, free_port, keypair,
                        reply, request, text)
from flow import let_pass


class Case(unittest.TestCase):
    def setUp(self):
        self.sockets = []
        self.daemon = daemon = harness.Daemon()
        self.addCleanup(daemon.close)
        self.endpoint = f"ipc://{daemon.path('news')}"
        self.router = f"ipc://{daemon.path('router')}"
        folder = daemon.path("images")
        os.makedirs(folder)
        harness.fixture("images", folder, 0, 8)
        self.files = []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                self.files.append(file.read())

    def tearDown(self):
        for one in self.sockets:
            one.close()

    def start(self, more=""):
        self.daemon.write("kamend.conf",
                          f"[zmq]\nrouter = {self.router}\npublish = {self.endpoint}\n" + more)
        self.daemon.start()
        for site in ("a", "ab"):
            self.daemon.ctl("site", "create", site, "--set", "policy=manual")

    def subscribe(self, *topics, site="a", **how):
        """Returns once it is heard."""
        sock = Socket(SUB, how.pop("endpoint", self.endpoint), **how)
        self.sockets.append(sock)
        for topic in topics:
            sock.option(SUBSCRIBE, topic.encode())
        session = self.daemon.session()

        def heard():
            session.ask(0, INFER, self.files[0], site=site)
            return sock.receive(0.1)
        wait_until(heard, "the first news")
        session.close()
        while sock.receive(0.1):
            pass
        return sock

    def news(self, sock):
        parts = sock.receive()
        assert parts, "no news"
        self.assertEqual(len(parts), 2)
        row = fields(parts[1])
        out = {"topic": parts[0].decode(), "sequence": row[2], "since": row[3]}
        if 4 in row:
            result = fields(row[4])
            code = result[2]
            out.update(site=result[1].decode(), verdict=result[3], part_id=result.get(11),
                       version=result.get(7), space=result.get(14, b"").hex(),
                       code=code - (1 << 64) if code >> 63 else code)
        else:
            event = fields(row[5])
            out.update(site=event[1].decode(), what=event[2].decode(),
                       detail=event[3].decode(), audit=event.get(5))
        return out

    def metric(self, name):
        for line in self.daemon.command("metrics").stdout.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(name)


class Results(Case):
    def test_answers_of_every_transport_are_published(self):
        self.start()
        sock = self.subscribe("a/")
        session = self.daemon.session()
        want = session.ask(0, INFER, self.files[0], site="a")
        first = self.news(sock)
        self.assertEqual((first["topic"], first["site"]), ("a/result", "a"))
        for key in ("verdict", "version", "space", "code"):
            self.assertEqual(first[key], want[key], key)
        dealer = Socket(DEALER, self.router)
        self.sockets.append(dealer)
        dealer.send(request(1, part_id=77), self.files[1])
        self.assertEqual(reply(dealer.receive())["code"], 0)
        second = self.news(sock)
        self.assertEqual(second["part_id"], 77)
        self.assertEqual((second["sequence"], second["since"]),
                         (first["sequence"] + 1, first["since"]))
        self.assertEqual(session.ask(0, INFER, b"none", site="a")["code"], -74)
        self.assertEqual(self.news(sock)["code"], -74)
        # Neither other sites' nor what is no inference.
        session.ask(0, INFER, self.files[0], site="ab")
        session.ask(0, ECHO, b"x")
        session.ask(0, INFER, self.files[2], site="a")
        third = self.news(sock)
        self.assertEqual((third["site"], third["sequence"]), ("a", first["sequence"] + 3))
        session.close()
        wait_until(lambda: self.metric("kamen_zmq_published_total") > 3, "they are counted")
        self.daemon.stop()

    def dealer(self):
        sock = Socket(DEALER, self.router)
        self.sockets.append(sock)
        return sock

    def inspect(self, dealer, n):
        """So many answers of the site; errors are the quickest."""
        for i in range(n + 16):
            if i < n:
                dealer.send(request(i, mask=1, version=99), b"x")
            if i >= 16:
                self.assertIn(reply(dealer.receive())["code"], (-2, -16))

    def test_a_slow_subscriber_sees_its_own_gaps(self):
        self.start()
        slow, quick = self.subscribe("a/", rcvhwm=1), self.subscribe("a/")
        dealer = self.dealer()
        heard, last = [], None
        while len(heard) < 6000:
            self.inspect(dealer, 200)
            while (parts := quick.receive(0.02)):
                heard.append(fields(parts[1])[2])
        self.assertEqual(heard, list(range(heard[0], heard[0] + len(heard))))
        n, previous, gaps = 0, heard[0] - 1, 0
        while (parts := slow.receive(0.5)):
            last = fields(parts[1])[2]
            if last < heard[0]:
                continue
            gaps += last - previous - 1
            previous = last
            n += 1
        gaps += heard[-1] - previous
        self.assertGreater(gaps, 0)
        self.assertEqual(n + gaps, len(heard))
        self.daemon.stop()

    def test_an_ingest_that_stands_still_costs_no_answer(self):
        self.start()
        sock = self.subscribe("a/")
        ingest = self.daemon.role("ingest")
        session = self.daemon.session()
        os.kill(ingest, signal.SIGSTOP)
        try:
            def dropped():
                for _ in range(25):
                    for slot in range(4):
                        session.submit(slot, INFER, b"x", site="a", mask=1, version=99)
                    for slot in range(4):
                        self.assertEqual(session.wait()["code"], -2)
                    session.hung_up()
                return self.metric("kamen_feed_dropped_total") > 0
            wait_until(dropped, "news are dropped")
        finally:
            os.kill(ingest, signal.SIGCONT)
        session.close()
        self.inspect(self.dealer(), 20)
        sequences = []
        while (parts := sock.receive(0.5)):
            sequences.append(fields(parts[1])[2])
        self.assertEqual(sequences, sorted(set(sequences)))
        self.assertGreater(sequences[-1] - sequences[0] + 1, len(sequences), "there is a hole")
        self.daemon.stop()

    def test_nothing_is_fed_while_nobody_listens(self):
        self.start()
        session = self.daemon.session()
        session.ask(0, INFER, self.files[0], site="a")
        sock = self.subscribe("a/")
        wait_until(lambda: self.metric("kamen_zmq_published_total") > 0, "news")
        sock.close()
        self.wait_for_quiet(session)
        session.close()
        self.daemon.stop()

    def wait_for_quiet(self, session):
        dealer = self.dealer()

        def quiet():
            before = self.metric("kamen_zmq_published_total")
            session.ask(0, INFER, self.files[0], site="a")
            # Counts are told every second: another one's says that this one's are.
            requests = self.metric("kamen_zmq_requests_total")
            dealer.send(request(1, verb=ECHO), b"x")
            reply(dealer.receive())
            wait_until(lambda: self.metric("kamen_zmq_requests_total") > requests, "counts")
            return self.metric("kamen_zmq_published_total") == before
        wait_until(quiet, "nobody is told")

    def subscriber(self):
        """One that says what it likes: libzmq's own do not end what they never began."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.append(sock)
        sock.settimeout(harness.PATIENCE)
        wait_until(lambda: sock.connect_ex(self.daemon.path("news")) == 0, "it is bound")
        sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"
        sock.sendall(bytes([4, len(ready)]) + ready)
        # It is let in, then, and what it says is heard.
        said = b""
        while b"READY" not in said:
            more = sock.recv(1024)
            assert more, "it is not let in"
            said += more
        return sock

    @staticmethod
    def say(sock, *words):
        for word in words:
            sock.sendall(bytes([0, len(word)]) + word)

    def hear(self, sock, session, site):
        """Returns once it is heard, and nothing more is on its way."""
        def heard():
            session.ask(0, INFER, self.files[0], site=site)
            if not select.select([sock], [], [], 0.1)[0]:
                return False
            return f"{site}/result".encode() in sock.recv(1 << 20)
        wait_until(heard, "news")
        while select.select([sock], [], [], 0.1)[0]:
            self.assertTrue(sock.recv(1 << 20), "it is connected")

    def test_who_listens_no_more_is_not_fed_though_it_stays(self):
        self.start()
        session = self.daemon.session()
        for _ in range(2):
            sock = self.subscriber()
            # Twice is once.
            self.say(sock, b"\x01a/", b"\x01a/", b"\x01ab/")
            self.hear(sock, session, "a")
            self.say(sock, b"\x00a/", b"\x00ab/")
            self.wait_for_quiet(session)
            if select.select([sock], [], [], 0)[0]:
                self.assertTrue(sock.recv(1 << 20), "it is connected still")
        session.close()
        self.daemon.stop()

    def test_connections_that_are_gone_leave_nothing_behind(self):
        self.start()
        session = self.daemon.session()
        stays = self.subscriber()
        self.say(stays, b"\x01ab/")
        self.hear(stays, session, "ab")
        # As many topics as are remembered, and what the one that stays listens for, too.
        goes = self.subscriber()
        self.say(goes, b"\x01ab/", *(b"\x01ab/%d" % i for i in range(4100)), b"\x01a/")
        self.hear(goes, session, "a")
        goes.close()
        self.hear(stays, session, "ab")
        last = self.subscriber()
        self.say(last, b"\x01a/", b"\x01a/")
        self.hear(last, session, "a")
        self.say(last, b"\x00a/")
        self.say(stays, b"\x00ab/")
        self.wait_for_quiet(session)
        session.close()
        self.daemon.stop()

    def test_nobody_switches_the_feed_of_others_off(self):
        self.start()
        sock, bad = self.subscribe("a/"), self.subscriber()
        session = self.daemon.session()
        self.say(bad, b"\x01ab/", b"\x00a/", b"\x00a/", b"\x00ab/", b"\x00ab/", b"\x01ab/")
        self.hear(bad, session, "ab")
        while sock.receive(0.1):
            pass
        session.ask(0, INFER, self.files[0], site="a")
        self.assertEqual(self.news(sock)["site"], "a")
        session.close()
        self.daemon.stop()


class Events(Case):
    def hear_until(self, sock, what):
        """Rows of the audit, as they are and without holes."""
        seen = []
        while not seen or seen[-1]["what"] != what:
            seen.append(self.news(sock))
        self.assertEqual([row["sequence"] for row in seen],
                         list(range(seen[0]["sequence"], seen[0]["sequence"] + len(seen))))
        rows = {row["seq"]: row for row in self.daemon.ctl("audit", "show", "--last", "0")}
        for row in seen:
            self.assertEqual((row["site"], row["topic"]), ("a", "a/event"))
            self.assertEqual(rows[row["audit"]]["what"], row["what"])
            self.assertEqual(rows[row["audit"]]["detail"], row["detail"])
        return [row["what"] for row in seen]

    def test_decisions_are_published_in_order(self):
        self.start()
        daemon = self.daemon
        topics = ("a/event", "ab/result")
        sock = self.subscribe(*topics, site="ab")
        folder = daemon.path("more")
        os.makedirs(folder)
        harness.fixture("images", folder, 0, 64)
        daemon.ctl("push", "a", folder)
        daemon.ctl("learn", "a", "--steps", "60", "--wait")
        self.assertEqual(self.hear_until(sock, "round.end"), ["round.begin", "round.end"])
        if daemon.one("mask", "show", "a", "1")["state"] == "held":
            let_pass(daemon, "a", 1)
            sock = self.subscribe(*topics, site="ab")
        daemon.ctl("mask", "promote", "a", "1")
        daemon.ctl("mask", "rollback", "a")
        daemon.ctl("site", "pause", "a")
        daemon.ctl("site", "delete", "a", "--yes")
        self.assertEqual(self.hear_until(sock, "site.delete"),
                         ["mask.promote", "mask.rollback", "site.pause", "site.delete"])
        daemon.stop()

    def test_a_gap_and_a_new_site_are_events(self):
        self.start()
        pull = f"ipc://{self.daemon.path('pull')}"
        sock = self.subscribe("")
        self.daemon.ctl("site", "create", "c", "--set", f"zmq_pull={pull}")
        row = self.news(sock)
        self.assertEqual((row["topic"], row["what"]), ("c/event", "site.create"))
        camera = Socket(PUSH_SOCKET, pull)
        self.sockets.append(camera)
        for sequence in (0, 5):
            camera.send(field(1, 1) + text(2, "cam") + field(3, sequence), self.files[sequence])
        row = self.news(sock)
        self.assertEqual((row["topic"], row["what"], row["detail"], row["audit"]),
                         ("c/event", "gap", "4 frames of cam", None))
        self.daemon.stop()


class Confined(Case):
    def test_a_peer_hears_of_its_sites_alone(self):
        keys, server = keypair(), None
        done = self.daemon.command("zmq", "keygen", self.daemon.path("server"))
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.daemon.path("server.pub"), encoding="ascii") as file:
            server = file.read().split()[1].encode()
        self.daemon.write("peers", f"[a]\nkey = {keys[0].decode()}\nsites = a\n")
        self.endpoint = f"{self.endpoint} tcp://127.0.0.1:{free_port()}"
        tcp = self.endpoint.split()[1]
        self.start(f"server_key = {self.daemon.path('server')}\n"
                   f"peers = {self.daemon.path('peers')}\n")
        how = {"endpoint": tcp, "server": server, "keys": keys}
        everything = self.subscribe("", **how)
        its_own = self.subscribe("a/result", **how)
        curious = self.subscribe("ab/", "a", "a/", **how)
        for sock in (everything, its_own, curious):
            while sock.receive(0.1):
                pass
        session = self.daemon.session()
        for _ in range(3):
            session.ask(0, INFER, self.files[0], site="ab")
        session.ask(0, INFER, self.files[0], site="a")
        for sock in (everything, its_own, curious):
            self.assertEqual(self.news(sock)["site"], "a")
            self.assertIsNone(sock.receive(0.1))
        session.close()
        self.daemon.stop()

    def test_what_is_no_subscription_moves_nobody_elses(self):
        """libzmq's XPUB_MANUAL takes the next subscription for somebody else's then."""
        a, b = keypair(), keypair()
        self.assertEqual(
            self.daemon.command("zmq", "keygen", self.daemon.path("server")).returncode, 0)
        with open(self.daemon.path("server.pub"), encoding="ascii") as file:
            server = file.read().split()[1].encode()
        self.daemon.write("peers", f"[a]\nkey = {a[0].decode()}\nsites = a\n"
                          f"[b]\nkey = {b[0].decode()}\nsites = ab\n")
        tcp = f"tcp://127.0.0.1:{free_port()}"
        self.endpoint += f" {tcp}"
        self.start(f"server_key = {self.daemon.path('server')}\n"
                   f"peers = {self.daemon.path('peers')}\n")
        ingest = self.daemon.role("ingest")
        honest = self.subscribe("ab/", site="ab", endpoint=tcp, server=server, keys=b)
        bad = Socket(XSUB, tcp, server=server, keys=a)
        self.sockets.append(bad)
        self.assertTrue(bad.send(b"\x01a/"))
        session = self.daemon.session()

        def heard(sock, site):
            session.ask(0, INFER, self.files[0], site=site)
            return sock.receive(0.1)
        wait_until(lambda: heard(bad, "a"), "it is let in")
        # All of it waits when ingest looks again: the order of the queue is the test's.
        os.kill(ingest, signal.SIGSTOP)
        for _ in range(20):
            bad.send(b"\x02junk")
        for _ in range(8):
            honest.option(SUBSCRIBE, b"ab/result")
            honest.option(SUBSCRIBE, b"ab/")
            honest.option(SUBSCRIBE, b"ab/" + os.urandom(4).hex().encode())
            bad.send(b"\x01a/" + os.urandom(4).hex().encode())
        os.kill(ingest, signal.SIGCONT)
        wait_until(lambda: "sent what is no subscription" in self.daemon.log(), "it is said")
        wait_until(lambda: heard(honest, "ab"), "an honest one is heard again")
        for _ in range(5):
            session.ask(0, INFER, self.files[0], site="ab")
        while (parts := bad.receive(0.2)):
            self.assertTrue(parts[0].startswith(b"a/"), parts[0])
        session.close()
        self.daemon.stop()


if __name__ == "__main__":
    unittest.main()
