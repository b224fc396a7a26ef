# SPDX-License-Identifier: Apache-2.0
"""The ROUTER: what data.sock answers, over ZeroMQ, and what strangers may do to it."""

import os
import signal
import socket
import struct
import time
import unittest

import harness
from harness import BGR8, ECHO, INFER, MONO8, PUSH, RGB8, field, fields, wait_until
from zmq_client import DEALER, DONTWAIT, REQ, Socket, free_port, reply, request, text

EACCES, EBADMSG, EBUSY, EINVAL, ENODATA = -13, -74, -16, -22, -61
ENOENT, EPROTO, ESTALE = -2, -71, -116
ETIMEDOUT, EFBIG, ENOTCONN = -110, -27, -107
NO_VERDICT = 0


class Case(harness.Case):
    MORE = ""

    def setUp(self):
        self.sockets = []

    def tearDown(self):
        for one in self.sockets:
            one.close()

    @classmethod
    def endpoint(cls):
        return f"ipc://{cls.daemon.path('router')}"

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon("", cls.SITES)
        cls.daemon.write("kamend.conf", f"[zmq]\nrouter = {cls.endpoint()}{cls.MORE}\n" + cls.CONFIG)
        cls.daemon.start()
        cls.daemon.ctl("site", "create", "a", "--set", "policy=manual")
        folder = cls.daemon.path("images")
        os.makedirs(folder)
        harness.fixture("images", folder, 0, 4)
        cls.files = []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                cls.files.append(file.read())

    def connect(self, kind=DEALER, **options):
        one = Socket(kind, self.endpoint(), **options)
        self.sockets.append(one)
        return one

    def ask(self, sock, ident, data, **how):
        self.assertTrue(sock.send(request(ident, **how), data))
        return reply(sock.receive())


class Answers(Case):
    def test_a_hello_is_answered(self):
        sock = self.connect()
        sock.send(field(1, 1) + field(2, 7) + text(3, field(1, 1) + field(2, 0)))
        answer = reply(sock.receive())
        welcome = fields(answer["welcome"])
        self.assertEqual((answer["id"], welcome[1]), (7, 1))
        self.assertEqual(welcome[7], 16 << 20)

    def test_the_answer_is_that_of_data_sock(self):
        session = self.daemon.session(slot_bytes=1 << 20)
        sock = self.connect()
        pixels = bytes(i * 7 & 255 for i in range(40 * 30 * 3))
        for data, how in ((self.files[0], {}), (self.files[1], {"px": 0xFFFFFFFF}),
                          (pixels, {"fmt": RGB8, "width": 40, "height": 30}),
                          (pixels, {"fmt": BGR8, "width": 40, "height": 30}),
                          (pixels, {"fmt": MONO8, "width": 60, "height": 30, "stride": 120})):
            session.submit(0, INFER, data, site="a", flags=1, **how)
            want = session.wait()
            got = self.ask(sock, 9, data, flags=1, **how)
            self.assertEqual(got["code"], 0, got["reason"])
            for key in ("verdict", "version", "space", "embedding"):
                self.assertEqual(got[key], want[key], key)
            self.assertGreater(len(got["embedding"]), 0)
        echo = session.ask(0, ECHO, b"x" * 1000)
        self.assertEqual(self.ask(sock, 1, b"x" * 1000, verb=ECHO, site=None)["checksum"],
                         echo["checksum"])
        session.close()

    def test_what_is_to_be_echoed_is(self):
        answer = self.ask(self.connect(), 1 << 63, b"x", verb=ECHO, trigger_id=1, part_id=2,
                          capture_us=3, encoder=(1 << 64) - 1, budget_ns=10 ** 15)
        self.assertEqual(answer["id"], 1 << 63)
        self.assertEqual(answer["budget_ns"], 10 ** 15)
        self.assertEqual(answer["echo"], (1, 2, 3, (1 << 64) - 1))

    def test_a_req_socket_asks_too(self):
        sock = self.connect(REQ)
        self.assertEqual(self.ask(sock, 3, self.files[0])["code"], 0)
        self.assertEqual(self.ask(sock, 4, b"no image")["code"], EBADMSG)

    def test_a_pushed_image_is_accepted_once(self):
        sock = self.connect()
        images = self.images(900, 1)
        with open(os.path.join(images, os.listdir(images)[0]), "rb") as file:
            data = file.read()
        self.assertEqual(self.ask(sock, 1, data, verb=PUSH)["outcome"], 0)
        self.assertEqual(self.ask(sock, 2, data, verb=PUSH)["outcome"], 1)

    def test_a_space_may_be_asked_for(self):
        sock = self.connect()
        space = bytes.fromhex(self.ask(sock, 1, self.files[0])["space"])
        self.assertEqual(self.ask(sock, 2, self.files[0], flags=2, space=space)["code"], 0)
        wrong = self.ask(sock, 3, self.files[0], flags=2, space=b"x" * 32)
        self.assertEqual((wrong["code"], wrong["space"]), (ESTALE, space.hex()))

    def test_many_at_once_are_each_answered_once(self):
        sock = self.connect()
        left = set(range(1, 401))
        todo, flying = sorted(left), 0
        while left:
            while todo and flying < 16:
                ident = todo.pop()
                self.assertTrue(sock.send(request(ident), self.files[ident % 4]))
                flying += 1
            answer = reply(sock.receive())
            self.assertEqual(answer["code"], 0, answer["reason"])
            left.remove(answer["id"])
            flying -= 1
        self.assertIsNone(sock.receive(0.05))


class Deadlines(Case):
    CONFIG = "slots = 4\n"

    def test_the_deadline_is_answered_also_while_serve_stands_still(self):
        sock = self.connect()
        self.assertEqual(self.ask(sock, 1, self.files[0])["code"], 0)
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            for ident in range(10, 20):
                self.assertTrue(sock.send(request(ident, budget_ns=50_000_000), self.files[0]))
            answers = [reply(sock.receive()) for _ in range(10)]
        finally:
            os.kill(self.daemon.process.pid, signal.SIGCONT)
        self.assertGreaterEqual(time.monotonic() - begun, 0.05)
        self.assertEqual({(a["code"], a["verdict"], a["reason"]) for a in answers},
                         {(ETIMEDOUT, NO_VERDICT, "deadline")})
        self.assertEqual(sorted(a["id"] for a in answers), list(range(10, 20)))
        self.assertEqual(self.ask(sock, 2, self.files[0], budget_ns=10 ** 12)["code"], 0)

    def test_who_still_waits_at_the_end_is_told(self):
        daemon = harness.Daemon()
        self.addCleanup(daemon.close)
        daemon.write("kamend.conf", f"[zmq]\nrouter = ipc://{daemon.path('router')}\nslots = 4\n")
        daemon.start()
        daemon.ctl("site", "create", "a")
        sock = Socket(DEALER, f"ipc://{daemon.path('router')}")
        self.sockets.append(sock)
        self.assertEqual(self.ask(sock, 1, self.files[0])["code"], 0)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        for ident in range(10, 22):
            self.assertTrue(sock.send(request(ident), self.files[0]))
        # Refused at once, behind the others: they are all there.
        self.assertTrue(sock.send(b"\xff", b"x"))
        self.assertEqual(reply(sock.receive())["code"], EBADMSG)
        os.kill(daemon.process.pid, signal.SIGTERM)
        os.kill(daemon.process.pid, signal.SIGCONT)
        answers = [reply(sock.receive()) for _ in range(12)]
        self.assertEqual(sorted(a["id"] for a in answers), list(range(10, 22)))
        self.assertLessEqual({a["code"] for a in answers}, {0, ENOTCONN})
        self.assertEqual(daemon.process.wait(harness.PATIENCE), 0)

    def test_a_budget_without_end_is_none(self):
        self.assertEqual(self.ask(self.connect(), 1, self.files[0],
                                  budget_ns=(1 << 64) - 1)["code"], 0)


class Limits(Case):
    def refused(self, code, word, *parts):
        sock = self.connect()
        self.assertTrue(sock.send(*parts))
        answer = reply(sock.receive())
        self.assertEqual(answer["code"], code, answer["reason"])
        self.assertEqual(answer["verdict"], NO_VERDICT)
        self.assertIn(word, answer["reason"])
        self.assertEqual(self.ask(sock, 5, self.files[0])["code"], 0, "the peer goes on")
        return answer

    def test_what_is_no_request_is_answered_so(self):
        self.refused(EBADMSG, "header", b"\xff\xff\xff", b"x")
        self.refused(EBADMSG, "two parts", request(1))
        self.refused(EBADMSG, "two parts", b"x", b"y", b"z", b"w")
        self.refused(EBADMSG, "two parts", *[b"x"] * 30)
        self.refused(EBADMSG, "header", b"", b"")
        self.refused(EBADMSG, "header", b"x" * 5000, b"x")
        self.refused(EBADMSG, "header", b"", b"", b"x")

    def test_what_contradicts_itself_is_named(self):
        for ident, (code, word, data, how) in enumerate((
                (EPROTO, "major", b"x", {"major": 2}),
                (EINVAL, "verb", b"x", {"verb": 9}),
                (EINVAL, "format", b"x", {"fmt": 9}),
                (EINVAL, "mask", b"x", {"mask": 9}),
                (EINVAL, "flags", b"x", {"flags": 16}),
                (EINVAL, "in one answer", b"x", {"flags": 12}),
                (EINVAL, "site", b"x", {"site": "../etc"}),
                (EINVAL, "site", b"x", {"site": None}),
                (EINVAL, "space", b"x", {"space": b"short"}),
                (EINVAL, "no bytes", b"", {}),
                (EINVAL, "pixel", b"x", {"fmt": RGB8}),
                (EINVAL, "rows", b"x", {"fmt": RGB8, "width": 10, "height": 10}),
                (EINVAL, "stride", b"x" * 300,
                 {"fmt": RGB8, "width": 10, "height": 10, "stride": 29}),
                (EINVAL, "size", b"x", {"fmt": MONO8, "width": 0xFFFFFFFF, "height": 0xFFFFFFFF,
                                        "stride": 0xFFFFFFFF}),
                (ENOENT, "nowhere", b"x", {"site": "nowhere"}),
                (ENODATA, "hardness", self.files[0], {"flags": 4}),
                # Only admins may ask serve for that, and ingest itself is one.
                (EACCES, "px", self.files[0], {"px": 48}))):
            answer = self.refused(code, word, request(ident + 100, **how), data)
            self.assertEqual(answer["id"], ident + 100)

    def test_an_oversized_frame_ends_its_connection_alone(self):
        other = self.connect()
        sock = self.connect()
        sock.send(request(1), bytes((16 << 20) + 1))
        self.assertIsNone(sock.receive(0.3))
        self.assertEqual(self.ask(other, 2, self.files[0])["code"], 0)

    def test_an_address_of_ones_own_is_refused(self):
        answer = self.ask(self.connect(routing_id=b"somebody else"), 1, self.files[0])
        self.assertEqual(answer["code"], EINVAL)
        self.assertIn("ROUTING_ID", answer["reason"])


class Crowds(Case):
    tcp = f"tcp://127.0.0.1:{free_port()}"
    MORE = " " + tcp
    # A pong may take as long as the largest frame before it.
    CONFIG = "slots = 4\nplain_tcp = on\n[serve]\nmax_frame_bytes = 256K\n"

    def test_a_flood_is_told_and_others_are_answered(self):
        flood, other = self.connect(), self.connect()
        sent = 0
        while sent < 600:
            self.assertTrue(flood.send(request(sent + 1), self.files[0]))
            sent += 1
            if sent % 100 == 0:
                self.assertEqual(self.ask(other, sent, self.files[1])["code"], 0)
        codes = [reply(flood.receive())["code"] for _ in range(sent)]
        self.assertEqual(set(codes) - {0, EBUSY}, set())
        self.assertGreater(codes.count(0), 16)

    def test_a_crowd_of_connections_is_one_peer(self):
        crowd = [self.connect() for _ in range(90)]
        other = Socket(DEALER, self.tcp)
        self.sockets.append(other)
        for turn in range(3):
            for i, sock in enumerate(crowd):
                for k in range(14):
                    self.assertTrue(sock.send(request(k + 1), self.files[0]))
                # Its own turn comes, however many others there are.
                if i % 10 == 0:
                    self.assertEqual(self.ask(other, i + 1, self.files[1])["code"], 0)
        codes = [reply(sock.receive())["code"] for sock in crowd for _ in range(3 * 14)]
        self.assertEqual(set(codes), {0, EBUSY})

    def test_a_peer_that_does_not_read_costs_itself(self):
        deaf, other = self.connect(rcvhwm=1), self.connect()
        for i in range(4000):
            if not deaf.send(request(i), b"x" * 64, flags=DONTWAIT):
                break
        self.assertEqual(self.ask(other, 1, self.files[0])["code"], 0)
        self.lives()

    def test_peers_that_vanish_leave_nothing(self):
        for i in range(30):
            gone = self.connect()
            for k in range(4):
                gone.send(request(k), self.files[0])
            gone.close()
        self.assertEqual(self.ask(self.connect(), 1, self.files[0])["code"], 0)
        self.lives()

    def test_half_open_peers_are_in_nobodys_way(self):
        raw = []
        for i in range(50):
            one = socket.socket(socket.AF_UNIX)
            one.connect(self.daemon.path("router"))
            one.send(b"\xff\0\0\0\0\0\0\0\1\x7f"[:1 + i % 10])
            raw.append(one)
        # One that says hello, and then nothing any more: no pong to a ping.
        host, port = self.tcp.split("//")[1].split(":")
        silent = socket.create_connection((host, int(port)))
        ready = b"\5READY\x0bSocket-Type\0\0\0\6DEALER"
        silent.send(b"\xff" + bytes(8) + b"\x7f\3\0NULL" + bytes(48) +
                    bytes([4, len(ready)]) + ready)
        raw.append(silent)
        self.assertEqual(self.ask(self.connect(), 1, self.files[0])["code"], 0)
        # A handshake has five seconds, a pong seven.
        for one in raw:
            one.settimeout(harness.PATIENCE)
            try:
                while one.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            one.close()

    def test_garbage_on_the_socket_harms_nobody(self):
        one = socket.socket(socket.AF_UNIX)
        one.connect(self.daemon.path("router"))
        try:
            one.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        except OSError:
            pass
        self.assertEqual(self.ask(self.connect(), 1, self.files[0])["code"], 0)
        one.close()

    def test_an_ingest_that_dies_is_reached_again(self):
        sock = self.connect()
        self.assertEqual(self.ask(sock, 1, self.files[0])["code"], 0)
        os.kill(self.daemon.role("ingest"), signal.SIGKILL)

        def answered():
            sock.send(request(2), self.files[0], flags=DONTWAIT)
            got = sock.receive(0.2)
            return got and reply(got)["code"] == 0
        wait_until(answered, "an answer after ingest's restart")


class Start(unittest.TestCase):
    def refused(self, config, line, word):
        daemon = harness.Daemon(config)
        self.addCleanup(daemon.close)
        self.assertEqual(daemon.spawn().wait(harness.PATIENCE), 78, daemon.log())
        self.assertIn(f"kamend.conf:{line}:", daemon.log())
        self.assertIn(word, daemon.log())

    def test_tcp_is_refused_unless_it_is_safe_or_asked_for(self):
        self.refused("[zmq]\nrouter = tcp://0.0.0.0:5999\n", 2, "server_key")
        self.refused("[zmq]\n\nrouter = tcp://*:5999\nplain_tcp = on\n", 3, "server_key")
        self.refused("[zmq]\npublish = ipc:///tmp/x tcp://127.0.0.1:5999\n", 2, "plain_tcp")
        self.refused("[site]\nzmq_pull = tcp://[::1]:5999\n", 2, "plain_tcp")
        self.refused("[zmq]\nrouter = tcp://localhost:5999\n", 2, "router")
        self.refused("[zmq]\nrouter = ipc://@abstract\n", 2, "router")


class Full(Case):
    CONFIG = "[serve]\nmax_clients = 1\n"

    def test_who_cannot_be_served_is_told(self):
        session = self.daemon.session()
        sock = self.connect()
        self.assertEqual(self.ask(sock, 1, b"x", verb=ECHO)["code"], -87)  # EUSERS
        session.close()
        wait_until(lambda: self.ask(sock, 2, b"x", verb=ECHO)["code"] == 0, "there is room")


class Endless(Case):
    MORE = "\nmemory_bytes = 67108864"

    def test_a_message_without_end_takes_no_memory_without_end(self):
        session = self.daemon.session()
        self.daemon.role("ingest")
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(harness.PATIENCE)
        wait_until(lambda: os.path.exists(self.endpoint()[6:]), "it is bound")
        sock.connect(self.endpoint()[6:])
        # ZMTP 3.0, NULL; then parts that all say that one more comes.
        sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        sock.sendall(b"\x04" + bytes([len(ready)]) + ready)
        part = (b"\x03" + struct.pack(">Q", 1 << 20) + bytes(1 << 20)) * 4
        with self.assertRaises(OSError):
            for _ in range(256):
                sock.sendall(part)
        sock.close()
        self.assertEqual(session.ask(0, ECHO, b"x")["code"], 0)
        session.close()
        dealer = self.connect()
        wait_until(lambda: dealer.send(request(1, verb=ECHO), b"x", flags=DONTWAIT) and
                   dealer.receive(0.5), "the next one is answered")


if __name__ == "__main__":
    unittest.main()
