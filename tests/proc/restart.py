# SPDX-License-Identifier: Apache-2.0
"""serve is replaced under load, by itself and by a service manager: no request is lost, none is
answered twice, and no session notices more than a pause.

KAMEN_RESTARTS says how often each way."""

import array
import mmap
import multiprocessing
import os
import random
import select
import signal
import socket
import struct
import subprocess
import time
import unittest

import harness
from harness import ECHO, INFER, RGB8, field, fields, wait_until

N_RESTARTS = int(os.environ.get("KAMEN_RESTARTS", "5"))
PX = 32
RESUME = 1
EX_CONFIG = 78


class Session(harness.Session):
    """Understands Resumed."""

    def __init__(self, path, n_slots=4, slot_bytes=64 << 10, features=RESUME):
        super().__init__(path, hello=field(1, 1) + field(2, 0) + field(3, features) +
                         field(4, n_slots) + field(5, slot_bytes))
        self.generation = 0

    def read_socket(self):
        """Bells, and perhaps a new region. Raises once the daemon has closed."""
        while select.select([self.sock], [], [], 0)[0]:
            data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
            if not data:
                raise ConnectionError("the daemon ended the session")
            if len(data) == 1:
                continue
            resumed = fields(data)
            assert resumed[1] > self.generation, "generations rise"
            assert resumed[2] == self.welcome[8] and len(fds) == 1
            self.generation = resumed[1]
            self.results = mmap.mmap(fds[0], resumed[2], prot=mmap.PROT_READ)
            os.close(fds[0])

    def take(self, patience):
        """The next answer, or None."""
        end = time.monotonic() + patience
        while True:
            self.read_socket()
            head, = struct.unpack("<I", self.results[64:68])
            if head != self.seen & 0xFFFFFFFF:
                at = 256 + (self.seen % self.n) * 16
                slot, _, ident = struct.unpack("<IIQ", self.results[at:at + 16])
                self.seen += 1
                return self.result(slot, ident)
            left = end - time.monotonic()
            if left <= 0:
                return None
            select.select([self.sock], [], [], left)


class Load:
    """A client in a process of its own: all slots in flight, every answer checked."""

    def __init__(self, path, seed, site):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.run, args=(path, seed, site, theirs))
        self.process.start()
        theirs.close()
        assert self.pipe.poll(harness.PATIENCE) and self.pipe.recv() == "ready"

    def run(self, path, seed, site, pipe):
        try:
            pipe.send(self.load(path, seed, site, pipe))
        except Exception as error:  # whatever it is, the test has to hear of it
            pipe.send({"error": repr(error)})

    def frames(self, session, site, dice):
        """Requests with the answers that they have to have, of the daemon while it is at rest."""
        kinds = []
        for _ in range(8):
            data = dice.randbytes(dice.randrange(1, 4096))
            kinds.append((dict(verb=ECHO, data=data), session.ask(0, ECHO, data)["checksum"]))
        for _ in range(4):
            how = dict(verb=INFER, data=dice.randbytes(3 * PX * PX), site=site, fmt=RGB8, width=PX,
                       height=PX, flags=1)
            answer = session.ask(0, **how)
            assert answer["code"] == 0, answer["reason"]
            kinds.append((how, answer["embedding"]))
        return kinds

    @staticmethod
    def is_right(answer, wanted):
        if answer["code"] != 0:
            return False
        if isinstance(wanted, int):
            return answer["checksum"] == wanted
        # Of another batch size the last bits may differ.
        return len(answer["embedding"]) == len(wanted) and \
            max(abs(a - b) for a, b in zip(answer["embedding"], wanted)) < 1e-3

    def load(self, path, seed, site, pipe):
        dice = random.Random(seed)
        session = Session(path)
        kinds = self.frames(session, site, dice)
        pipe.send("ready")
        in_flight, times = {}, array.array("d")
        out = {"answered": 0, "doubled": 0, "wrong": 0, "lost": 0, "said": ""}
        stop = False
        while in_flight or not stop:
            stop = stop or pipe.poll()
            free = [] if stop else \
                [slot for slot in range(session.n)
                 if slot not in [slot for slot, _ in in_flight.values()]]
            for slot in free:
                how, wanted = dice.choice(kinds)
                in_flight[session.submit(slot, **how)] = (slot, wanted)
            answer = session.take(60)
            if answer is None:
                out["lost"] = len(in_flight)
                break
            times.append(time.monotonic())
            slot, wanted = in_flight.pop(answer["id"], (None, None))
            if slot is None:
                out["doubled"] += 1
            elif slot != answer["slot"] or not self.is_right(answer, wanted):
                out["wrong"] += 1
                out["said"] = f"{answer['code']} {answer['reason']}"
            out["answered"] += 1
        if session.take(.2) is not None:
            out["doubled"] += 1
        return dict(out, generation=session.generation, times=times.tolist())

    def finish(self):
        self.pipe.send("stop")
        assert self.pipe.poll(harness.PATIENCE), "the client hangs"
        out = self.pipe.recv()
        self.process.join()
        return out


class Manager(harness.Notes):
    """Of systemd's manners as much as it takes to keep descriptors and to start a service again."""

    def __init__(self, path):
        self.store = {}
        super().__init__(path)

    def listen(self):
        while True:
            note, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
            if not note:
                return
            lines = note.decode().split("\n")
            name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "stored")
            if "FDSTORE=1" in lines:
                assert len(fds) == 1 and name not in self.store, name
                self.store[name] = fds[0]
            elif "FDSTOREREMOVE=1" in lines:
                if name in self.store:
                    os.close(self.store.pop(name))
            else:
                self.heard.append(note.decode())

    def let_go(self):
        """Whose peer has hung up."""
        for name, fd in list(self.store.items()):
            poller = select.poll()
            poller.register(fd, 0)
            if name.endswith("-socket") and poller.poll(0):
                os.close(self.store.pop(name))

    def close(self):
        super().close()
        for fd in self.store.values():
            os.close(fd)


class Service(harness.Daemon):
    """A daemon under such a manager, which outlives it."""

    MAX_STORED = 512

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.manager = Manager(self.path("notify"))

    def spawn(self, alone=False, **extra):
        self.notes = self.manager
        self.deaf()
        self.manager.let_go()
        names = list(self.manager.store)
        fds = [self.manager.store[name] for name in names]
        env = dict(os.environ, NOTIFY_SOCKET=self.manager.path, OMP_NUM_THREADS="1",
                   FDSTORE=str(self.MAX_STORED), **extra)
        if fds:
            env.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(names))
        # No number below those that the service gets is free for what Popen needs itself.
        fill = []
        while not fill or fill[-1] < 3 + len(fds):
            fill.append(os.open("/dev/null", os.O_RDONLY))

        def place():
            high = [os.dup(fd) for fd in fds]
            first = 1000
            for i, fd in enumerate(high):
                os.dup2(fd, first + i)
            for i in range(len(high)):
                os.dup2(first + i, 3 + i, inheritable=True)

        with open(self.path("log"), "ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh",
                 os.path.join(harness.BIN, "kamend"), "--config", self.config, "--model",
                 self.model, "--state", self.path("state"), "--runtime", self.path("run"),
                 "--foreground"],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=place,
                pass_fds=range(3, 3 + len(fds)))
        for fd in fill:
            os.close(fd)
        return self.process


def gap(times, begin, end):
    """The longest silence between two answers that overlaps what happened then."""
    longest = 0.0
    for before, after in zip(times, times[1:]):
        if after >= begin and before <= end:
            longest = max(longest, after - before)
    return longest


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def under_load(test, daemon, restart, n, what):
    """Restarts n times while clients ask, and looks at what they got."""
    loads = [Load(daemon.path("run/data.sock"), seed, "a") for seed in range(3)]
    strikes = []
    try:
        for i in range(n):
            time.sleep(random.Random(i).uniform(.05, .3))
            begin = time.monotonic()
            restart()
            strikes.append((begin, time.monotonic()))
        # What was submitted is answered, and new sessions are welcome.
        daemon.one("status")
    finally:
        outs = [load.finish() for load in loads]
    for out in outs:
        test.assertNotIn("error", out, daemon.log())
    totals = {key: sum(out[key] for out in outs) for key in ("answered", "lost", "doubled", "wrong")}
    gaps = [gap(out["times"], *strike) for out in outs for strike in strikes]
    print(f"{what}: {n} restarts, {totals['answered']} answers, {totals['lost']} lost, "
          f"{totals['doubled']} doubled, {totals['wrong']} wrong; gap p50 "
          f"{percentile(gaps, .5):.3f} s, p99 {percentile(gaps, .99):.3f} s", flush=True)
    test.assertEqual((totals["lost"], totals["doubled"], totals["wrong"]), (0, 0, 0),
                     [out["said"] for out in outs])
    for out in outs:
        test.assertEqual(out["generation"], n, "each session was resumed every time")


class Execute(harness.Case):
    """kamenctl restart and SIGUSR2: the process stays, the program is new."""

    SITES = {"a": f"[site]\ninput_px = {PX}\n"}

    def restart_by_signal(self):
        self.daemon.deaf()
        self.daemon.process.send_signal(signal.SIGUSR2)
        self.daemon.hear("RELOADING=1")
        self.daemon.hear("READY=1")

    def test_under_load_nothing_is_lost(self):
        pid = self.daemon.process.pid
        under_load(self, self.daemon, self.restart_by_signal, N_RESTARTS, "execve")
        self.assertIsNone(self.daemon.process.poll())
        self.assertEqual(self.daemon.process.pid, pid)
        self.assertIn("kamen_clients_resumed_total 3", self.daemon.command("metrics").stdout)

    def test_kamenctl_waits_for_the_new_one(self):
        session = Session(self.daemon.path("run/data.sock"))
        status = self.daemon.one("restart")
        self.assertLess(status["uptime_s"], self.daemon.one("status")["uptime_s"])
        self.assertEqual(session.generation, 0)
        session.submit(0, ECHO, b"x")
        self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
        self.assertEqual(session.generation, 1)
        session.close()

    def test_who_does_not_know_of_it_connects_anew(self):
        session = self.daemon.session()
        self.assertEqual(session.welcome.get(3, 0), 0)
        self.daemon.one("restart")
        wait_until(session.hung_up, "the session ends")
        session.close()
        session = self.daemon.session()
        self.assertEqual(session.ask(0, ECHO, b"x")["code"], 0)
        session.close()

    def test_a_broken_configuration_keeps_the_old_one(self):
        with open(self.daemon.config, encoding="utf-8") as file:
            text = file.read()
        self.daemon.write("kamend.conf", "[serve]\nno_such_key = 1\n")
        session = Session(self.daemon.path("run/data.sock"))
        self.assertIn("no_such_key", self.daemon.error("restart"))
        session.submit(0, ECHO, b"x")
        self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
        self.assertEqual(session.generation, 0)
        self.daemon.write("kamend.conf", text)
        session.close()


class Manage(unittest.TestCase):
    """A service manager that keeps descriptors, and a serve that is killed."""

    def setUp(self):
        self.daemon = Service(sites=Execute.SITES)
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def restart(self):
        self.daemon.kill()
        self.daemon.start()

    def test_under_load_nothing_is_lost(self):
        under_load(self, self.daemon, self.restart, N_RESTARTS, "kill -9 and fd store")


if __name__ == "__main__":
    unittest.main()
