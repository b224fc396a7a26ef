# SPDX-License-Identifier: Apache-2.0
"""A real kamend in a folder of its own, and a client that may misbehave. Standard library only."""

import json
import mmap
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

BIN = os.environ["KAMEN_BIN"]
FIXTURE = os.environ["KAMEN_FIXTURE"]
PATIENCE = 300.0  # a sanitizer on a busy machine


def wait_until(condition, what, patience=PATIENCE):
    """The only place that waits: for a condition, with a deadline."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        select.select([], [], [], 0.02)
    raise AssertionError(f"in vain: {what}")


def fixture(*args):
    return subprocess.run([FIXTURE, *map(str, args)], check=True, capture_output=True,
                          text=True).stdout


class Notes:
    """What a process tells systemd. Read at once, as systemd does: a full queue stops the sender."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.path = path
        self.heard = []
        self.thread = None
        self.resume()

    def listen(self):
        while note := self.socket.recv(4096):
            self.heard.append(note.decode())

    def pause(self):
        """What was told until now is heard, and no more."""
        if not self.thread:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.path)
        self.thread.join()
        self.thread = None

    def resume(self):
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def close(self):
        self.pause()
        self.socket.close()
        os.unlink(self.path)


class Daemon:
    """One kamend with its state, runtime folder, configuration and log."""

    def __init__(self, config="", sites=None, model=None, flawed=False, uid=None):
        """uid: who the daemon is, where the test is root."""
        self.dir = tempfile.mkdtemp(prefix="kamen-proc-")
        self.config = self.path("kamend.conf")
        self.model = model or self.path("model.safetensors")
        if not model:
            fixture("model", self.model, 11, "flawed" if flawed else "whole")
        self.write("kamend.conf", config)
        for name, text in (sites or {}).items():
            os.makedirs(self.path("sites.d"), exist_ok=True)
            self.write(f"sites.d/{name}.conf", text)
        self.process = self.notes = None
        self.uid = uid

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def spawn(self, alone=False, **extra):
        """alone: in a process group of its own, so that one signal reaches every role."""
        if self.notes:
            self.notes.close()
        self.notes = Notes(self.path("notify"))
        env = dict(os.environ, NOTIFY_SOCKET=self.path("notify"), OMP_NUM_THREADS="1", **extra)
        log = open(self.path("log"), "ab")
        who = {}
        if self.uid is not None:
            who = {"user": self.uid, "group": self.uid, "extra_groups": []}
            for path, _, files in os.walk(self.dir):
                for name in [path] + [os.path.join(path, file) for file in files]:
                    os.chown(name, self.uid, self.uid)
        self.process = subprocess.Popen(
            [os.path.join(BIN, "kamend"), "--config", self.config, "--model", self.model,
             "--state", self.path("state"), "--runtime", self.path("run"), "--foreground"],
            env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=alone,
            **who)
        log.close()
        return self.process

    def deaf(self):
        """Forgets what was told so far."""
        self.notes.heard = []

    def hear(self, note, patience=PATIENCE):
        """Waits for what the daemon tells systemd."""
        def heard():
            ended = self.process.poll() is not None
            if any(note in n for n in self.notes.heard):
                return True
            assert not ended, f"no {note}; log:\n{self.log()}"
            return False
        wait_until(heard, note, patience)

    def start(self, **extra):
        self.spawn(**extra)
        self.hear("READY=1")
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        assert status == 0, f"exit status {status}; log:\n{self.log()}"

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        if self.notes:
            self.notes.close()
        log = self.log() if os.path.exists(self.path("log")) else ""
        shutil.rmtree(self.dir, ignore_errors=True)
        # A sanitizer speaks on stderr; who was killed cannot say it by an exit status.
        assert "Sanitizer" not in log and "runtime error:" not in log, log

    def log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    # ---- kamenctl

    def command(self, *args):
        done = self.command_bytes(*args)
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        return done

    def command_bytes(self, *args):
        """Whose output need not be text."""
        return subprocess.run(
            [os.path.join(BIN, "kamenctl"), "--runtime", self.path("run"), *map(str, args)],
            capture_output=True, timeout=PATIENCE)

    def ctl(self, *args):
        """The JSON rows of a command that has to succeed."""
        done = self.command(*args, "--json")
        assert done.returncode == 0, f"{args}: {done.stderr}\nlog:\n{self.log()}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def one(self, *args):
        return self.ctl(*args)[-1]

    def error(self, *args):
        """The one line of a command that has to fail."""
        done = self.command(*args)
        assert done.returncode == 1, f"{args}: status {done.returncode}: {done.stderr}"
        lines = done.stderr.splitlines()
        assert len(lines) == 1, f"{args}: not one line: {done.stderr}"
        return lines[0]

    def precision(self):
        """What new versions are judged and served in."""
        return self.one("status")["precision"]

    def role(self, name):
        """Its process, once it runs."""
        def look():
            for role in self.one("status")["roles"]:
                if role["name"] == name and role["pid"]:
                    return role["pid"]
            return None
        return wait_until(look, f"role {name}")

    def session(self, **how):
        return Session(self.path("run/data.sock"), **how)

    def push_in_order(self, site, folder):
        """One at a time. What is held out, and so what the gate finds, goes by the order of arrival;
        of images that are under way together that is chance."""
        session = self.session(n_slots=1)
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                session.submit(0, PUSH, file.read(), site=site)
            session.sock.recv(64)
            answer = session.wait()
            assert (answer["code"], answer["outcome"]) == (0, 0), answer["reason"]
        session.close()

    def control(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE)
        sock.connect(self.path("run/control.sock"))
        return sock


# ---- just enough protobuf

def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    return varint(number << 3) + varint(value)


def fields(data):
    """Top-level fields: number -> varint, bytes, float or double."""
    found, at = {}, 0

    def take():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = take()
        if key & 7 == 0:
            found[key >> 3] = take()
        elif key & 7 in (1, 5):
            found[key >> 3], = struct.unpack_from("<d" if key & 7 == 1 else "<f", data, at)
            at += 8 if key & 7 == 1 else 4
        elif key & 7 == 2:
            n = take()
            found[key >> 3] = data[at:at + n]
            at += n
        else:
            raise ValueError("field")
    return found


# ---- data.sock, spelled out (shm_layout.h)

ECHO, INFER, PUSH = 1, 2, 3
ENCODED, RGB8, MONO8, BGR8 = 0, 1, 2, 3
REQUEST = struct.Struct("<QQQ4Q4I4I2I16x32s64s")
assert REQUEST.size == 208
PAGE = 4096
HELLO = field(1, 1) + field(2, 0) + field(110, 2)  # major, minor, layout


def page_round(n):
    return (n + PAGE - 1) // PAGE * PAGE


class Session:
    """A client without libkamen's manners: every byte it writes is up to the test."""

    def __init__(self, path, n_slots=4, slot_bytes=64 << 10, hello=None):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.sock.send(hello if hello is not None else
                       HELLO + field(4, n_slots) + field(5, slot_bytes))
        data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
        self.welcome = fields(data) if data else None
        if not data or 15 in self.welcome:
            return
        self.n, self.slot_bytes = self.welcome[6], self.welcome[7]
        self.results_fd, self.frames_fd, self.bell = fds
        self.results = mmap.mmap(self.results_fd, self.welcome[8], prot=mmap.PROT_READ)
        self.frames = mmap.mmap(self.frames_fd, self.welcome[9])
        self.head = self.seen = 0
        self.next_id = 1

    def close(self):
        self.sock.close()

    def slot_at(self, slot):
        return page_round(192 + self.n * 208) + slot * page_round(self.slot_bytes)

    def publish(self, head):
        self.frames[64:68] = struct.pack("<I", head & 0xFFFFFFFF)
        os.write(self.bell, struct.pack("<Q", 1))

    def submit(self, slot, verb, data=b"", site="", fmt=ENCODED, width=0, height=0, stride=0,
               deadline_ns=0, n_bytes=None, mask=0, version=0, px=0, flags=0, space=b"",
               publish=True):
        at = self.slot_at(slot) if slot < self.n else None
        if at is not None:
            self.frames[at:at + len(data)] = data
        row = REQUEST.pack(self.next_id, deadline_ns, len(data) if n_bytes is None else n_bytes,
                           0, 0, 0, 0, verb, slot, fmt, flags, width, height, stride, px, mask,
                           version, space, site.encode())
        entry = 192 + (self.head % self.n) * 208
        self.frames[entry:entry + 208] = row
        self.head += 1
        self.next_id += 1
        if publish:
            self.publish(self.head)
        return self.next_id - 1

    def wait(self, patience=PATIENCE):
        """The next answer."""
        def ready():
            head, = struct.unpack("<I", self.results[64:68])
            return head != self.seen & 0xFFFFFFFF
        wait_until(lambda: ready() or self.hung_up(), "an answer", patience)
        if not ready():
            raise ConnectionError("the daemon ended the session")
        at = 256 + (self.seen % self.n) * 16
        slot, _, ident = struct.unpack("<IIQ", self.results[at:at + 16])
        self.seen += 1
        return self.result(slot, ident)

    def result(self, slot, ident):
        at = page_round(256 + self.n * 16) + slot * (384 + 4 * 4096)
        row = self.results[at:at + 384]
        code, verdict, version, n_embedding = struct.unpack_from("<iIII", row, 56)
        outcome, = struct.unpack_from("<I", row, 84)
        n_hardness, side = struct.unpack_from("<II", row, 360)
        n = n_embedding + n_hardness
        values = struct.unpack(f"<{n}f", self.results[at + 384:at + 384 + 4 * n])
        checksum, = struct.unpack_from("<Q", row, 88)
        reason = row[192:352].split(b"\0")[0].decode()
        assert struct.unpack_from("<Q", row)[0] == ident
        return {"id": ident, "slot": slot, "code": code, "verdict": verdict, "version": version,
                "outcome": outcome, "checksum": checksum, "reason": reason,
                "space": row[96:128].hex(), "hardness_side": side,
                "label": row[128:192].split(b"\0")[0].decode(),
                "embedding": values[:n_embedding], "hardness": values[n_embedding:]}

    def ask(self, *args, **kwargs):
        self.submit(*args, **kwargs)
        return self.wait()

    def hung_up(self):
        """Drains the bells; True once the daemon has closed."""
        while select.select([self.sock], [], [], 0)[0]:
            try:
                if not self.sock.recv(64):
                    return True
            except ConnectionResetError:
                return True
        return False


class Case(unittest.TestCase):
    """A daemon a test class; a new one where the class asks for none."""

    CONFIG = ""
    SITES = {}

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls.CONFIG, cls.SITES)
        cls.daemon.start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.close()

    def images(self, first, n):
        folder = self.daemon.path(f"images-{first}-{n}")
        os.makedirs(folder, exist_ok=True)
        fixture("images", folder, first, n)
        return folder

    def spool(self, site, folder):
        """Drops a folder's images as a camera should: a temporary name, then a rename."""
        into = self.daemon.path(f"state/spool/{site}")
        wait_until(lambda: os.path.isdir(into), "the spool folder")
        for name in sorted(os.listdir(folder)):
            shutil.copy(os.path.join(folder, name), os.path.join(into, "." + name))
            os.rename(os.path.join(into, "." + name), os.path.join(into, name))
        return into

    def lives(self):
        self.assertIsNone(self.daemon.process.poll(), self.daemon.log())
        self.daemon.one("status")
