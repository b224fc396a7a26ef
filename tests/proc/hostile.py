# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear error to the one who sent it, and nothing else happens."""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
import unittest

import harness
from harness import BGR8, ECHO, ENCODED, INFER, MONO8, PUSH, RGB8, Daemon, field, fields, fixture

EX_CONFIG = 78
ETIMEDOUT, EINVAL, EFBIG, ENOENT, EBADMSG = -110, -22, -27, -2, -74


def refused_start(test, daemon, status, *words):
    test.assertEqual(daemon.spawn().wait(harness.PATIENCE), status, daemon.log())
    lines = [line for line in daemon.log().splitlines() if line]
    test.assertEqual(len(lines), 1, daemon.log())
    for word in words:
        test.assertIn(word, lines[0])


class Start(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)

    def test_an_unknown_key_is_named_with_its_line(self):
        self.daemon.write("kamend.conf", "[model]\n\nno_such_key = 1\n")
        refused_start(self, self.daemon, EX_CONFIG, "kamend.conf:3", "no_such_key")

    def test_a_damaged_model_is_refused(self):
        with open(self.daemon.model, "r+b") as file:
            file.truncate(os.path.getsize(self.daemon.model) // 2)
        refused_start(self, self.daemon, EX_CONFIG, self.daemon.model)

    def test_a_file_that_is_no_model_is_refused(self):
        self.daemon.write("model.safetensors", "This is no safetensors file, by far.")
        refused_start(self, self.daemon, EX_CONFIG, self.daemon.model)

    def test_damaged_state_is_refused(self):
        os.makedirs(self.daemon.path("state"))
        self.daemon.write("state/state.db", "no database" * 100)
        refused_start(self, self.daemon, 1, "state.db")

    def test_a_second_daemon_leaves_the_first_alone(self):
        self.daemon.start()
        other = Daemon()
        self.addCleanup(other.close)
        os.symlink(self.daemon.path("run"), other.path("run"))
        self.assertEqual(other.spawn().wait(harness.PATIENCE), 1)
        self.assertIn("another kamend runs here", other.log())
        self.daemon.one("status")

    def test_a_killed_daemon_leaves_sockets_that_are_in_nobodys_way(self):
        self.daemon.start()
        self.daemon.kill()
        self.assertTrue(os.path.exists(self.daemon.path("run/data.sock")))
        self.daemon.start()
        self.daemon.stop()
        self.assertFalse(os.path.exists(self.daemon.path("run/data.sock")))


class Control(harness.Case):
    SITES = {"fixed": "[site]\ninput_px = 24\n"}

    def test_a_bad_reload_keeps_what_there_was(self):
        daemon = self.daemon
        self.assertEqual(daemon.one("site", "show", "fixed")["input_px"], 24)
        daemon.write("sites.d/fixed.conf", "[site]\ninput_px = many\n")
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("RELOADING=1")
        daemon.hear("READY=1")
        self.assertIn("fixed.conf:2", daemon.log())
        self.assertEqual(daemon.one("site", "show", "fixed")["input_px"], 24)
        daemon.write("sites.d/fixed.conf", "[site]\n# now\ninput_px = 16\n")
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("READY=1")
        site = daemon.one("site", "show", "fixed")
        self.assertEqual(site["input_px"], 16)
        self.assertIn("fixed.conf:3", site["set_by"]["input_px"])

    def test_what_is_wrong_is_said_in_one_line(self):
        daemon = self.daemon
        daemon.ctl("site", "create", "words")
        self.assertIn("words", daemon.error("site", "create", "words"))
        self.assertIn("nobody", daemon.error("site", "show", "nobody"))
        self.assertIn("input_px", daemon.error("site", "create", "odd", "--set", "input_px=33"))
        self.assertIn("no_key", daemon.error("site", "create", "odd", "--set", "no_key=1"))
        self.assertIn("fixed.conf", daemon.error("site", "delete", "fixed", "--yes"))
        self.assertIn("words has 0 images", daemon.error("learn", "words"))
        self.assertIn("9", daemon.error("mask", "promote", "words", "9"))
        self.assertIn("roll back", daemon.error("mask", "rollback", "words"))
        self.assertIn("objective", daemon.error("learn", "words", "--objective", "magic"))
        last = daemon.one("site", "delete", "words", "--yes")
        self.assertEqual((last["site"], last["state"], last["champion"], last["images"]),
                         ("words", "deleted", 0, 0))
        self.assertEqual(last["input_px"], daemon.one("status")["native_px"])

    def test_who_says_no_hello_is_let_go(self):
        sock = self.daemon.control()
        self.assertEqual(sock.recv(10), b"")
        sock.close()

    def test_a_damaged_mask_is_refused_by_name(self):
        daemon = self.daemon
        daemon.ctl("site", "create", "m")
        daemon.write("bad.kmask", "KMSK" + "x" * 500)
        daemon.error("mask", "import", "m", daemon.path("bad.kmask"))
        self.assertEqual(daemon.ctl("mask", "list", "m"), [])
        self.lives()

    def test_packets_that_are_no_requests_cost_only_their_sender(self):
        hello = field(1, 1) + b"\x12\x04" + field(1, 1) + field(2, 0)
        for packet in (b"\xff" * 64, b"\x08\x01", b"", b"\x00" * 70000, b"\x08\x01\x12\xff\xff"):
            sock = self.daemon.control()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            sock.send(hello)
            self.assertIn(10, fields(sock.recv(65536)))
            if packet:
                sock.send(packet)
                answer = sock.recv(65536)
                self.assertIn(3, fields(answer), "an error")
            sock.close()
        sock = self.daemon.control()
        sock.send(field(1, 7) + b"\x52\x00")
        self.assertIn(b"hello", fields(sock.recv(65536))[3])
        self.assertEqual(sock.recv(10), b"", "and the connection is over")
        sock.close()
        self.lives()


class Strangers(harness.Case):
    def as_uid(self, uid, command):
        """Runs kamenctl as somebody else, past the sockets' own mode."""
        for path, mode in (("", 0o755), ("run", 0o755), ("run/data.sock", 0o666),
                           ("run/control.sock", 0o666)):
            os.chmod(self.daemon.path(path), mode)
        return subprocess.run(
            [os.path.join(harness.BIN, "kamenctl"), "--runtime", self.daemon.path("run"), *command],
            user=uid, group=uid, extra_groups=[], capture_output=True, text=True,
            timeout=harness.PATIENCE)

    @unittest.skipIf(os.geteuid() != 0, "needs root to be somebody else")
    def test_strangers_may_do_nothing(self):
        image = self.images(0, 1) + "/00000.png"
        os.chmod(os.path.dirname(image), 0o755)
        os.chmod(image, 0o644)
        self.daemon.ctl("site", "create", "a")
        for uid in (1234, 65534):
            for command in (("status",), ("site", "create", "b"), ("infer", "a", image),
                            ("push", "a", image)):
                done = self.as_uid(uid, command)
                self.assertNotEqual(done.returncode, 0, (uid, command))
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertEqual([site["site"] for site in self.daemon.ctl("site", "list")], ["a"])
        self.assertEqual(self.daemon.one("site", "show", "a")["images"], 0)


class Many(harness.Case):
    """More sites than one packet says."""

    NAMES = ["s%062d" % i for i in range(300)]
    SITES = {name: "[site]\ninput_px = 16\n" for name in NAMES}

    def test_every_site_is_listed_to_a_slow_reader(self):
        sock = self.daemon.control()
        sock.send(field(1, 1) + b"\x12\x04" + field(1, 1) + field(2, 0))
        sock.recv(65536)
        sock.send(field(1, 2) + b"\x62\x00")
        sock.send(field(1, 3) + b"\x52\x00")
        # Only once the daemon has done all it can without a reader.
        self.daemon.one("status")
        rows = [fields(sock.recv(65536)) for _ in self.NAMES]
        self.assertEqual([fields(row[12])[1].decode() for row in rows], self.NAMES)
        self.assertEqual([row[2] for row in rows], [0] * 299 + [1])
        self.assertEqual(fields(sock.recv(65536))[1], 3, "and then the next request")
        sock.close()
        self.assertEqual(len(self.daemon.ctl("site", "list")), 300)

    def test_ingest_knows_the_first_and_the_last(self):
        self.daemon.role("ingest")
        for name in (self.NAMES[0], self.NAMES[-1]):
            folder = self.daemon.path(f"state/spool/{name}")
            harness.wait_until(lambda: os.path.isdir(folder), "its spool")
            fixture("images", folder, 0, 1)
            harness.wait_until(lambda: self.daemon.one("site", "show", name)["images"] == 1,
                               "its image")


class Data(harness.Case):
    CONFIG = "[serve]\nmax_clients = 8\nuid_bytes = 0\n"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.ctl("site", "create", "a")

    def ended(self, session):
        harness.wait_until(session.hung_up, "the daemon ends the session")
        session.close()
        self.lives()

    def test_a_lying_cursor_ends_the_session(self):
        session = self.daemon.session()
        session.publish(1000)
        self.ended(session)
        self.assertIn("cursor is a lie", self.daemon.log())

    def test_a_slot_in_flight_is_not_taken_twice(self):
        session = self.daemon.session()
        os.kill(self.daemon.role("ingest"), signal.SIGSTOP)
        try:
            session.submit(0, INFER, b"P5 1 1 255\n0", site="a", publish=False)
            session.submit(0, INFER, b"P5 1 1 255\n0", site="a")
            self.ended(session)
        finally:
            os.kill(self.daemon.role("ingest"), signal.SIGCONT)
        self.assertIn("submitted again", self.daemon.log())

    def test_a_slot_that_does_not_exist_ends_the_session(self):
        session = self.daemon.session()
        session.submit(99, ECHO)
        self.ended(session)

    def test_a_packet_after_hello_ends_the_session(self):
        session = self.daemon.session()
        session.sock.send(b"\x08\x01\x10\x00")
        self.ended(session)

    def test_no_hello_no_session(self):
        for hello in (b"\xff" * 10, b"x" * 70000, field(1, 99) + field(2, 0)):
            session = None
            try:
                session = self.daemon.session(hello=hello)
            except OSError:
                continue
            self.assertTrue(session.welcome is None or 15 in session.welcome)
            session.close()
        self.lives()

    def test_another_layout_is_refused_by_name(self):
        for layout, hello in ((1, b""), (1, field(110, 1)), (3, field(110, 3))):
            session = self.daemon.session(hello=field(1, 1) + field(2, 0) + hello)
            error = fields(session.welcome[15])
            self.assertEqual(error[1] & 0xFFFFFFFF, (1 << 32) - 71, "EPROTO")
            self.assertIn(b"layout 2", error[2])
            self.assertIn(b"layout %d" % layout, error[2])
            session.close()
        self.assertIn("layout 1", self.daemon.log())
        self.lives()

    def test_a_hardness_map_that_is_not_there_is_no_answer(self):
        self.daemon.ctl("site", "create", "h")
        session = self.daemon.session()
        answer = session.ask(0, harness.INFER, bytes(3 * 32 * 32), site="h", fmt=harness.RGB8,
                             width=32, height=32, flags=4)
        self.assertEqual((answer["code"], answer["verdict"], answer["hardness_side"]), (-61, 0, 0))
        self.assertIn("no hardness map", answer["reason"])
        session.close()
        self.daemon.ctl("site", "delete", "h", "--yes")

    def test_too_many_clients_are_told_so(self):
        sessions = [self.daemon.session() for _ in range(8)]
        last = self.daemon.session()
        self.assertEqual(fields(last.welcome[15])[1] & 0xFFFFFFFF, (1 << 32) - 87, "EUSERS")
        for session in sessions + [last]:
            session.close()
        self.lives()

    def test_too_many_hellos_at_once_are_told_so(self):
        socks = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(12)]
        for sock in socks:
            sock.settimeout(harness.PATIENCE)
            sock.connect(self.daemon.path("run/data.sock"))
        # Its answer shows that all of them have arrived before the first hello.
        self.daemon.session().close()
        welcomes = []
        for sock in socks:
            sock.send(harness.HELLO)
            data, fds, _, _ = socket.recv_fds(sock, 65536, 4)
            welcomes.append(fields(data))
            for fd in fds:
                os.close(fd)
        refusals = [fields(welcome[15]) for welcome in welcomes if 15 in welcome]
        self.assertEqual([r[1] & 0xFFFFFFFF for r in refusals], [(1 << 32) - 87] * 4, "EUSERS")
        for sock in socks:
            sock.close()
        self.lives()

    def test_the_memory_of_all_sessions_is_bounded(self):
        how = dict(n_slots=64, slot_bytes=16 << 20)
        sessions = [self.daemon.session(**how) for _ in range(3)]
        refused = self.daemon.session(**how)
        self.assertEqual(fields(refused.welcome[15])[1] & 0xFFFFFFFF, (1 << 32) - 12, "ENOMEM")
        small = self.daemon.session()
        self.assertEqual(small.ask(0, ECHO, b"x")["code"], 0, "a small one still fits")
        for session in sessions + [refused, small]:
            session.close()

        def room():
            session = self.daemon.session(**how)
            session.close()
            return 15 not in session.welcome
        harness.wait_until(room, "their memory is given back")
        self.lives()

    def test_more_than_a_turn_reads_comes_in_several(self):
        session = self.daemon.session(n_slots=8, slot_bytes=16 << 20)
        ids = [session.submit(slot, ECHO, n_bytes=16 << 20, publish=slot == 7) for slot in range(8)]
        answers = [session.wait() for _ in ids]
        self.assertEqual([answer["id"] for answer in answers], ids)
        self.assertEqual({answer["code"] for answer in answers}, {0})
        session.close()

    def test_a_client_cannot_write_results_nor_shrink_anything(self):
        session = self.daemon.session()
        with self.assertRaises(OSError):
            os.pwrite(session.results_fd, b"x", 0)
        for fd in (session.results_fd, session.frames_fd):
            with self.assertRaises(OSError):
                os.ftruncate(fd, 0)
            with self.assertRaises(OSError):
                fcntl.fcntl(fd, 1033, 0)
        session.close()

    def test_requests_that_contradict_themselves_are_answered(self):
        session = self.daemon.session()
        image = bytes(32 * 32 * 3)
        good = dict(site="a", fmt=RGB8, width=32, height=32)
        cases = [
            (dict(good, site="nobody"), ENOENT), (dict(good, width=0), EINVAL),
            (dict(good, width=1 << 31, height=1 << 31), EINVAL), (dict(good, stride=3), EINVAL),
            (dict(good, height=33), EINVAL), (dict(good, stride=0xFFFFFFFF), EINVAL),
            (dict(good, n_bytes=1 << 40), EFBIG), (dict(good, n_bytes=0), EINVAL),
            (dict(good, fmt=7), EINVAL), (dict(good, px=31), EINVAL),
            (dict(good, px=1 << 20), EINVAL), (dict(good, mask=1, version=77), ENOENT),
            (dict(good, mask=9), EINVAL), (dict(site="a", fmt=ENCODED), EBADMSG),
        ]
        for how, code in cases:
            answer = session.ask(0, INFER, image, **how)
            self.assertEqual((answer["code"], answer["verdict"]), (code, 0), (how, answer))
            self.assertTrue(answer["reason"], how)
        answer = session.ask(0, 17, image, **good)
        self.assertEqual(answer["code"], EINVAL)
        self.assertEqual(session.ask(0, INFER, image, **good)["code"], 0)
        self.assertEqual(session.ask(0, INFER, image, px=(1 << 32) - 1, **good)["code"], 0)
        session.close()

    def test_a_damaged_image_costs_only_itself(self):
        folder = self.daemon.path("damaged")
        os.makedirs(folder)
        fixture("images", folder, 0, 1)
        with open(os.path.join(folder, "00000.png"), "rb") as file:
            png = file.read()
        session = self.daemon.session()
        for data in (png[:len(png) // 2], b"GIF89a" + bytes(100), b"P5 70000 70000 255\n"):
            self.assertLess(session.ask(0, INFER, data, site="a")["code"], 0)
            pushed = session.ask(0, PUSH, data, site="a")
            self.assertEqual(pushed["outcome"], 2, pushed)
            self.assertTrue(pushed["reason"])
        self.assertEqual(session.ask(0, INFER, png, site="a")["code"], 0)
        self.assertEqual(session.ask(0, PUSH, png, site="a")["outcome"], 0)
        self.assertEqual(session.ask(0, PUSH, png, site="a")["outcome"], 1)
        session.close()

    def test_a_deleted_sites_files_go_while_the_daemon_serves(self):
        self.daemon.ctl("site", "create", "gone")
        self.daemon.ctl("push", "gone", self.images(0, 100))
        self.daemon.ctl("site", "delete", "gone", "--yes")
        sites = self.daemon.path("state/sites")
        harness.wait_until(lambda: not [name for name in os.listdir(sites) if name[0] == "."],
                           "the files are removed")
        self.assertNotIn("gone", os.listdir(sites))
        self.lives()

    def test_pixels_are_read_in_place_with_their_stride(self):
        session = self.daemon.session()
        rows = [bytes([y * 7 % 256, x * 5 % 256, (x ^ y) % 256]) for y in range(32) for x in range(32)]
        dense = b"".join(rows)
        padded = b"".join(dense[y * 96:y * 96 + 96] + b"\xaa" * 33 for y in range(32))
        how = dict(site="a", fmt=RGB8, width=32, height=32, flags=1)
        one = session.ask(0, INFER, dense, **how)
        two = session.ask(1, INFER, padded, stride=129, **how)
        self.assertEqual(one["embedding"], two["embedding"])
        swapped = b"".join(bytes(reversed(row)) for row in rows)
        how["fmt"] = BGR8
        three = session.ask(2, INFER, swapped, **how)
        self.assertEqual(one["embedding"], three["embedding"])
        how.update(width=8, height=8)
        self.assertEqual(session.ask(0, PUSH, swapped[:192], **how)["outcome"], 0)
        grey = session.ask(2, INFER, dense[:1024], site="a", fmt=MONO8, width=32, height=32, flags=1)
        self.assertEqual((grey["code"], len(grey["embedding"])), (0, 48))
        session.close()

    def test_holes_in_the_frames_are_read_as_zeros(self):
        session = self.daemon.session()
        zeros = session.ask(0, ECHO, bytes(8192))["checksum"]
        session.ask(0, ECHO, b"\x01" * 8192)
        libc_punch(session.frames_fd, session.slot_at(0), 8192)
        session.submit(0, ECHO, b"", n_bytes=8192)
        self.assertEqual(session.wait()["checksum"], zeros)
        session.close()

    def test_at_the_deadline_there_is_an_answer(self):
        session = self.daemon.session()
        pid = self.daemon.role("ingest")
        os.kill(pid, signal.SIGSTOP)
        try:
            begin = time.monotonic_ns()
            answer = session.ask(0, INFER, b"P5 1 1 255\n0", site="a",
                                 deadline_ns=begin + 50_000_000)
            late_ms = (time.monotonic_ns() - begin) / 1e6
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual((answer["code"], answer["verdict"], answer["reason"]),
                         (ETIMEDOUT, 0, "deadline"))
        self.assertGreaterEqual(late_ms, 49)
        self.assertLess(late_ms, 5000)
        past = session.ask(0, INFER, b"P5 1 1 255\n0", site="a", deadline_ns=1)
        self.assertEqual(past["code"], ETIMEDOUT)
        self.assertEqual(session.ask(0, INFER, b"P5 1 1 255\n0", site="a")["code"], 0)
        session.close()

    def test_an_echo_that_is_read_in_parts_has_its_deadline(self):
        session = self.daemon.session(n_slots=4, slot_bytes=16 << 20)
        # The deadline of the last comes while it waits for the others to be read, or is read.
        for slot, deadline_ns in enumerate((0, 1, 0, time.monotonic_ns() + 1_000_000)):
            session.submit(slot, ECHO, n_bytes=16 << 20, deadline_ns=deadline_ns, publish=slot == 3)
        answers = {a["slot"]: a for a in (session.wait() for _ in range(4))}
        self.assertEqual([answers[slot]["code"] for slot in range(4)], [0, ETIMEDOUT, 0, ETIMEDOUT])
        self.assertEqual(answers[1]["reason"], "deadline")
        answers = [session.ask(slot, ECHO, n_bytes=16 << 20) for slot in range(4)]
        self.assertEqual({a["code"] for a in answers}, {0}, "each slot can be used again")
        small = session.ask(0, ECHO, b"x", deadline_ns=1)
        self.assertEqual((small["code"], small["verdict"], small["reason"], small["checksum"]),
                         (ETIMEDOUT, 0, "deadline", 0))
        session.close()

    def test_a_client_that_dies_in_flight_leaves_nothing_behind(self):
        for _ in range(20):
            session = self.daemon.session()
            for slot in range(4):
                session.submit(slot, INFER, bytes(3072), site="a", fmt=RGB8, width=32, height=32)
            session.close()
        harness.wait_until(lambda: "kamen_clients 0" in self.daemon.command("metrics").stdout and
                           "kamen_pending_requests 0" in self.daemon.command("metrics").stdout,
                           "every session and request is gone")

    def test_sites_share_the_thread_and_every_request_is_answered(self):
        self.daemon.ctl("site", "create", "b")
        self.daemon.ctl("site", "create", "c", "--set", "input_px=16")
        session = self.daemon.session(n_slots=64)
        wanted = {}
        for slot in range(64):
            site = "abc"[slot % 3]
            wanted[session.submit(slot, INFER, bytes([slot]) * 3072, site=site, fmt=RGB8, width=32,
                                  height=32, px=[0, 16, 24][slot % 5 % 3])] = site
        answers = [session.wait() for _ in range(64)]
        self.assertEqual({answer["id"] for answer in answers}, set(wanted))
        self.assertEqual({answer["code"] for answer in answers}, {0})
        session.close()


def libc_punch(fd, offset, length):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    keep_size, punch = 1, 2
    r = libc.fallocate(ctypes.c_int(fd), ctypes.c_int(keep_size | punch), ctypes.c_long(offset),
                       ctypes.c_long(length))
    assert r == 0, os.strerror(ctypes.get_errno())


class Drain(unittest.TestCase):
    def test_what_is_queued_is_answered_before_the_end(self):
        daemon = Daemon()
        self.addCleanup(daemon.close)
        daemon.start(WATCHDOG_USEC="400000")
        daemon.ctl("site", "create", "a")
        daemon.deaf()
        daemon.hear("WATCHDOG=1")
        session = daemon.session(n_slots=64)
        for slot in range(64):
            session.submit(slot, INFER, bytes(3072), site="a", fmt=RGB8, width=32, height=32)
        daemon.process.send_signal(signal.SIGTERM)
        answers = [session.wait() for _ in range(64)]
        self.assertEqual({answer["code"] for answer in answers}, {0})
        daemon.hear("STOPPING=1")
        self.assertEqual(daemon.process.wait(harness.PATIENCE), 0)
        self.assertTrue(session.hung_up())
        session.close()


if __name__ == "__main__":
    unittest.main()
