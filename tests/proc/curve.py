# SPDX-License-Identifier: Apache-2.0
"""Who may connect over tcp, and for which sites: CURVE, the list of keys, users of ipc."""

import os
import signal
import subprocess
import sys
import unittest

import harness
from harness import ECHO, PUSH, field, wait_until
from zmq_client import (DEALER, DONTWAIT, PUSH_SOCKET, Socket, free_port, keypair, reply, request,
                        text)

EACCES = -13


class Curve(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.sockets = []
        self.daemon = daemon = harness.Daemon()
        self.addCleanup(daemon.close)
        self.server = self.keygen("server")
        self.line, self.stranger = keypair(), keypair()
        self.tcp = f"tcp://127.0.0.1:{free_port()}"
        self.pull = f"tcp://127.0.0.1:{free_port()}"
        self.ipc = f"ipc://{daemon.path('router')}"
        self.list(f"[line]\nkey = {self.line[0].decode()}\nsites = a\n")
        daemon.write("kamend.conf", f"[zmq]\nrouter = {self.tcp} {self.ipc}\n"
                     f"server_key = {daemon.path('server')}\npeers = {daemon.path('peers')}\n")
        folder = daemon.path("images")
        os.makedirs(folder)
        harness.fixture("images", folder, 0, 1)
        with open(os.path.join(folder, os.listdir(folder)[0]), "rb") as file:
            self.image = file.read()

    def tearDown(self):
        for one in self.sockets:
            one.close()

    def keygen(self, name):
        done = self.daemon.command("zmq", "keygen", self.daemon.path(name), "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.stat(self.daemon.path(name)).st_mode & 0o777, 0o600)
        with open(self.daemon.path(name + ".pub"), encoding="ascii") as file:
            return file.read().split()[1].encode()

    def list(self, content):
        self.daemon.write("peers", content)
        os.chmod(self.daemon.path("peers"), 0o640)

    def start(self):
        self.daemon.start()
        for site in ("a", "b"):
            self.daemon.ctl("site", "create", site, "--set", "policy=manual")

    def connect(self, keys, endpoint=None, kind=DEALER, server=None):
        one = Socket(kind, endpoint or self.tcp, server=server or self.server if keys else None,
                     keys=keys)
        self.sockets.append(one)
        return one

    def ask(self, sock, site="a"):
        self.assertTrue(sock.send(request(1, site=site), self.image))
        return reply(sock.receive())

    def hears_nothing(self, sock):
        sock.send(request(1, verb=ECHO), b"x", flags=DONTWAIT)
        self.assertIsNone(sock.receive(0.5))

    def test_a_listed_key_speaks_for_its_sites_alone(self):
        self.start()
        sock = self.connect(self.line)
        self.assertEqual(self.ask(sock)["code"], 0)
        answer = self.ask(sock, "b")
        self.assertEqual(answer["code"], EACCES)
        self.assertIn("does not speak for site 'b'", answer["reason"])
        self.assertTrue(sock.send(request(2, verb=PUSH, site="b"), self.image))
        self.assertEqual(reply(sock.receive())["code"], EACCES)
        # Who opens the socket's file may do what data.sock lets it do.
        self.assertEqual(self.ask(self.connect(None, self.ipc), "b")["code"], 0)
        self.daemon.stop()

    def test_who_has_no_listed_key_hears_nothing(self):
        self.start()
        self.hears_nothing(self.connect(self.stranger))
        self.hears_nothing(self.connect(None))
        self.hears_nothing(self.connect(self.line, server=self.stranger[0]))
        self.assertIn("The key is not on the list", self.daemon.log())
        self.assertEqual(self.ask(self.connect(self.line))["code"], 0)
        self.daemon.stop()

    def test_the_list_is_read_again(self):
        self.start()
        sock = self.connect(self.line)
        self.assertEqual(self.ask(sock)["code"], 0)
        self.list("")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.ask(sock)["code"] == EACCES, "the key has no site any more")
        self.list("[line\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "peers:1:" in self.daemon.log(), "a wrong list is named")
        self.list(f"[line]\nkey = {self.line[0].decode()}\nsites = *\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.ask(sock, "b")["code"] == 0, "the key has every site")
        self.daemon.stop()

    def test_a_user_of_ipc_may_be_bound_to_sites(self):
        self.list(f"[camera]\nuid = {os.getuid()}\nsites = b\n")
        self.start()
        sock = self.connect(None, self.ipc)
        self.assertEqual(self.ask(sock, "b")["code"], 0)
        self.assertEqual(self.ask(sock, "a")["code"], EACCES)
        self.daemon.stop()

    def test_a_broken_list_opens_nothing(self):
        self.list(f"[camera]\nuid = {os.getuid()}\nsites = b\n[line\n")
        self.start()
        sock = self.connect(None, self.ipc)
        self.assertEqual(self.ask(sock, "a")["code"], EACCES)
        self.assertEqual(self.ask(sock, "b")["code"], EACCES)
        self.list(f"[camera]\nuid = {os.getuid()}\nsites = b\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.ask(sock, "b")["code"] == 0, "the list is right")
        self.assertEqual(self.ask(sock, "a")["code"], EACCES)
        self.daemon.stop()

    def test_a_stream_takes_images_of_keys_of_its_site(self):
        self.list(f"[line]\nkey = {self.line[0].decode()}\nsites = a\n"
                  f"[other]\nkey = {self.stranger[0].decode()}\nsites = b\n")
        self.start()
        self.daemon.ctl("site", "create", "c", "--set", f"zmq_pull={self.pull}")
        self.daemon.ctl("site", "delete", "c", "--yes")
        self.daemon.ctl("site", "delete", "a", "--yes")
        self.daemon.ctl("site", "create", "a", "--set", f"zmq_pull={self.pull}")
        frame = field(1, 1) + text(2, "cam") + field(3, 0)
        self.connect(self.stranger, self.pull, PUSH_SOCKET).send(frame, self.image)
        wait_until(lambda: self.daemon.one("site", "show", "a")["rejected"] == 1, "refused")
        self.assertIn("does not speak for this site", self.daemon.log())
        self.assertEqual(self.daemon.one("site", "show", "a")["images"], 0)
        self.connect(self.line, self.pull, PUSH_SOCKET).send(frame, self.image)
        wait_until(lambda: self.daemon.one("site", "show", "a")["images"] == 1, "accepted")
        self.daemon.stop()

    def test_an_open_secret_is_none(self):
        os.chmod(self.daemon.path("server"), 0o644)
        self.start()
        wait_until(lambda: "must not be open to others" in self.daemon.log(), "it is said")
        self.hears_nothing(self.connect(self.line))
        self.hears_nothing(self.connect(None))
        self.assertEqual(self.ask(self.connect(None, self.ipc))["code"], 0)
        self.daemon.stop()

    def test_the_example_gets_a_verdict(self):
        python = next((p for p in (sys.executable, "/usr/bin/python3") if subprocess.run(
            [p, "-c", "import zmq"], capture_output=True).returncode == 0), None)
        if not python:
            self.skipTest("there is no python3-zmq")
        public = self.keygen("camera").decode()
        self.list(f"[camera]\nkey = {public}\nsites = a\n")
        self.start()
        program = os.path.join(os.path.dirname(__file__), "../../client/examples/router_zmq.py")
        image = os.path.join(self.daemon.path("images"), os.listdir(self.daemon.path("images"))[0])
        for words, verdict in (
                ((self.ipc, "a"), "UNKNOWN"), ((self.ipc, "nowhere"), "NO_VERDICT"),
                ((self.tcp, "a"), "UNKNOWN"), ((self.tcp, "b"), "NO_VERDICT")):
            keys = [self.server.decode(), self.daemon.path("camera")] if "tcp" in words[0] else []
            done = subprocess.run([python, "-B", program, *words, image, *keys],
                                  capture_output=True, text=True)
            self.assertEqual(done.stderr, "", f"{words}\n{self.daemon.log()}")
            self.assertEqual(done.stdout.split()[0], verdict, done.stdout)
        self.daemon.stop()

    def test_who_is_not_let_in_to_a_stream_is_counted(self):
        self.daemon.write("kamend.conf", f"[zmq]\nserver_key = {self.daemon.path('server')}\n"
                          f"peers = {self.daemon.path('peers')}\n")
        self.start()
        self.daemon.ctl("site", "create", "c", "--set", f"zmq_pull={self.pull}")
        self.connect(self.stranger, self.pull, PUSH_SOCKET)
        wait_until(lambda: any(
            line.startswith("kamen_zmq_denied_total ") and float(line.split()[1]) > 0
            for line in self.daemon.command("metrics").stdout.splitlines()), "it is counted")
        self.daemon.stop()

    def test_an_endpoint_takes_nobody_elses_path(self):
        self.daemon.write("precious", "not a socket")
        own = self.daemon.path("run/data.sock")
        paths = [self.daemon.path("precious"), own, self.daemon.path("run/control.sock")]
        self.daemon.write("kamend.conf", "[zmq]\nrouter = " + " ".join(
            [self.ipc] + [f"ipc://{path}" for path in paths]) + "\n")
        self.start()
        self.daemon.ctl("site", "create", "c", "--set", f"zmq_pull={self.ipc}")
        for path, why in list(zip(paths, ("File exists", "in use", "in use"))) + [
                (self.ipc[6:], "in use")]:
            wait_until(lambda: any(path in line and why in line
                                   for line in self.daemon.log().splitlines()), path)
        with open(paths[0], encoding="utf-8") as file:
            self.assertEqual(file.read(), "not a socket")
        sock = self.connect(None, self.ipc)
        self.assertEqual(self.ask(sock)["code"], 0)
        session = self.daemon.session()
        self.assertEqual(session.ask(0, ECHO, b"x")["code"], 0)
        session.close()
        # What a killed one has left is in nobody's way.
        os.kill(self.daemon.role("ingest"), signal.SIGKILL)
        wait_until(lambda: not sock.receive(0) and sock.send(
            request(1, verb=ECHO), b"x", flags=DONTWAIT) and sock.receive(0.5), "bound again")
        self.daemon.stop()

    def test_plain_tcp_is_there_for_who_asks_for_it(self):
        self.daemon.write("kamend.conf", f"[zmq]\nrouter = {self.tcp}\nplain_tcp = on\n"
                          f"peers = {self.daemon.path('peers')}\n")
        self.list("[this machine]\naddress = 127.0.0.1\nsites = b\n")
        self.start()
        sock = self.connect(None)
        self.assertEqual(self.ask(sock, "b")["code"], 0)
        self.assertEqual(self.ask(sock, "a")["code"], EACCES)
        self.hears_nothing(self.connect(self.line))
        self.daemon.stop()


if __name__ == "__main__":
    unittest.main()
