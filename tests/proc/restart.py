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
import shutil
import signal
import socket
import struct
import time
import unittest

import harness
import manager
from harness import ECHO, INFER, PUSH, RGB8, field, fields, wait_until

N_RESTARTS = int(os.environ.get("KAMEN_RESTARTS", "5"))
PX = 32
RESUME = 1
# Of a session's first slot, in its state (session_state.h).
RUNS_AT = 64 + 16 + 96


class Session(harness.Session):
    """Understands Resumed."""

    def __init__(self, path, n_slots=4, slot_bytes=64 << 10, features=RESUME):
        super().__init__(path, hello=harness.HELLO + field(3, features) +
                         field(4, n_slots) + field(5, slot_bytes))
        self.generation = self.n_bells = 0

    def read_socket(self):
        """Bells, and perhaps a new region. Raises once the daemon has closed."""
        while select.select([self.sock], [], [], 0)[0]:
            data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
            if not data:
                raise ConnectionError("the daemon ended the session")
            if len(data) == 1:
                self.n_bells += 1
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
        # Ids of what is in flight; oldest: 0: nothing.
        self.oldest, self.newest = multiprocessing.Value("Q"), multiprocessing.Value("Q")
        self.process = multiprocessing.Process(target=self.run, args=(path, seed, site, theirs))
        self.process.start()
        theirs.close()
        assert self.pipe.poll(harness.PATIENCE) and self.pipe.recv() == "ready"

    def run(self, path, seed, site, pipe):
        try:
            pipe.send(self.load(path, seed, site, pipe))
        except Exception as error:  # whatever it is, the test has to hear of it
            pipe.send({"error": repr(error)})

    def tell(self, in_flight):
        if in_flight:
            self.newest.value = max(self.newest.value, max(in_flight))
        self.oldest.value = min(in_flight, default=0)

    def wait_for_the_old(self):
        """What is in flight now has its answer: a request that meets three kills in a row is one
        that may be the reason of them, which has a test of its own."""
        newest = self.newest.value
        wait_until(lambda: not 0 < self.oldest.value <= newest or
                   not self.process.is_alive(), "answers")

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
            self.tell(in_flight)
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
        session.close()
        self.tell({})
        return dict(out, generation=session.generation, times=times.tolist())

    def finish(self):
        self.pipe.send("stop")
        assert self.pipe.poll(harness.PATIENCE), "the client hangs"
        out = self.pipe.recv()
        self.process.join()
        return out


class LibraryLoad(Load):
    """The same through libkamen, told to take the daemon's end for its own."""

    def load(self, path, seed, site, pipe):
        import kamen
        dice = random.Random(seed)
        in_flight, times = {}, array.array("d")
        out = {"answered": 0, "doubled": 0, "wrong": 0, "lost": 0, "said": "", "generation": None}
        with kamen.Client(path, n_slots=4, slot_bytes=64 << 10, reconnect=0) as client:
            images = [memoryview(dice.randbytes(3 * PX * PX)).cast("B", (PX, PX, 3))
                      for _ in range(8)]
            blobs = [dice.randbytes(8 + i) for i in range(8)]
            wanted = [client.infer(site, image, embedding=True).embedding for image in images]
            for blob in blobs:
                client.submit("", blob, verb=ECHO)
                wanted.append(client.wait(60).checksum)
            pipe.send("ready")
            stop = False
            while in_flight or not stop:
                stop = stop or pipe.poll()
                while not stop and len(in_flight) < 4:
                    kind = dice.randrange(16)
                    number = client.submit(site, images[kind % 8], embedding=True) if kind < 8 \
                        else client.submit("", blobs[kind - 8], verb=ECHO)
                    in_flight[number] = kind
                self.tell(in_flight)
                try:
                    result = client.wait(60)
                except TimeoutError:
                    out["lost"] = len(in_flight)
                    break
                times.append(time.monotonic())
                kind = in_flight.pop(result.id, None)
                out["doubled"] += kind is None
                if kind is not None and not self.is_right(
                        {"code": result.code, "checksum": result.checksum,
                         "embedding": result.embedding}, wanted[kind]):
                    out["wrong"] += 1
                    out["said"] = f"{result.code} {result.reason}"
                out["answered"] += 1
        self.tell({})
        return dict(out, times=times.tolist())


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
    kinds = [Load, Load, LibraryLoad if "KAMEN_LIBRARY" in os.environ else Load]
    loads = [kind(daemon.path("run/data.sock"), seed, "a") for seed, kind in enumerate(kinds)]
    strikes = []
    try:
        for i in range(n):
            for load in loads:
                load.wait_for_the_old()
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
    return [out["generation"] for out in outs if out["generation"] is not None]


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
        generations = under_load(
            self, self.daemon, self.restart_by_signal, N_RESTARTS, "execve")
        self.assertEqual(set(generations), {N_RESTARTS}, "each session was resumed every time")
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

    def test_an_expired_deadline_is_answered_as_one(self):
        folder = self.images(0, 1)
        with open(f"{folder}/00000.png", "rb") as file:
            png = file.read()
        session = Session(self.daemon.path("run/data.sock"))
        os.kill(self.daemon.role("ingest"), signal.SIGSTOP)
        late = session.submit(0, INFER, png, site="a", deadline_ns=time.monotonic_ns() + 10**8)
        patient = session.submit(1, INFER, png, site="a")
        push = session.submit(2, PUSH, png, site="a")
        # Its answer shows that these were taken before.
        session.submit(3, ECHO, b"x")
        self.assertEqual(session.take(harness.PATIENCE)["slot"], 3)
        self.daemon.one("restart")
        answers = {}
        while len(answers) < 3:
            answer = session.take(harness.PATIENCE)
            self.assertNotIn(answer["id"], answers)
            answers[answer["id"]] = answer
        self.assertEqual((answers[late]["code"], answers[late]["reason"]), (-110, "deadline"))
        self.assertEqual(answers[patient]["code"], 0, answers[patient]["reason"])
        self.assertEqual((answers[push]["code"], answers[push]["outcome"]), (0, 0))
        session.close()

    def test_a_client_that_reads_no_bells_is_told_later(self):
        session = Session(self.daemon.path("run/data.sock"))
        # Until the daemon's bells have no room; it leaves them out then.
        for _ in range(100):
            for slot in range(4):
                session.submit(slot, ECHO, b"x")
            wait_until(lambda: struct.unpack("<I", session.results[64:68])[0] == session.head,
                       "answers")
        session.seen = session.head
        self.daemon.one("restart")
        session.submit(1, ECHO, b"y")
        self.assertEqual(session.take(harness.PATIENCE)["slot"], 1)
        self.assertEqual(session.generation, 1)
        self.assertLess(session.n_bells, 400, "the socket was full")
        session.close()

    def test_a_round_goes_on(self):
        daemon = self.daemon
        daemon.ctl("site", "create", "b", "--set", f"input_px={PX}")
        daemon.push_in_order("b", self.images(100, 60))
        daemon.ctl("learn", "b", "--steps", "60")
        daemon.role("learner")
        wait_until(lambda: "kamen_learning_step{" in daemon.command("metrics").stdout, "a step")
        daemon.one("restart")
        wait_until(lambda: daemon.one("mask", "list", "b")["state"] in ("candidate", "held"),
                   "the round ends")


class Upgrade(unittest.TestCase):
    """Another file under the program's path."""

    def setUp(self):
        self.daemon = harness.Daemon(sites=Execute.SITES)
        self.addCleanup(self.daemon.close)
        self.program = self.daemon.path("bin/kamend")
        self.original = harness.BIN
        self.addCleanup(setattr, harness, "BIN", self.original)
        os.mkdir(self.daemon.path("bin"))
        shutil.copy(os.path.join(self.original, "kamend"), self.program)
        harness.BIN = self.daemon.path("bin")
        self.daemon.start()
        harness.BIN = self.original

    def replace(self, make):
        make(self.program + ".new")
        os.chmod(self.program + ".new", 0o755)
        os.rename(self.program + ".new", self.program)

    def echo(self, session):
        session.submit(0, ECHO, b"x")
        self.assertEqual(session.take(harness.PATIENCE)["code"], 0)

    def test_the_new_file_is_executed(self):
        session = Session(self.daemon.path("run/data.sock"))
        self.replace(lambda path: shutil.copy(os.path.join(self.original, "kamend"), path))
        exe = f"/proc/{self.daemon.process.pid}/exe"
        self.assertIn("(deleted)", os.readlink(exe))
        self.daemon.one("restart")
        self.assertEqual(os.readlink(exe), self.program)
        self.echo(session)
        self.assertEqual(session.generation, 1)
        session.close()

    def test_a_file_that_is_no_program_changes_nothing(self):
        def garbage(path):
            with open(path, "wb") as file:
                file.write(b"\x7fELF and no more")
        session = Session(self.daemon.path("run/data.sock"))
        self.replace(garbage)
        self.assertIn("kamend", self.daemon.error("restart"))
        self.echo(session)
        self.assertEqual(session.generation, 0)
        self.assertIn("serving goes on", self.daemon.log())
        self.replace(lambda path: shutil.copy(os.path.join(self.original, "kamend"), path))
        self.daemon.role("ingest")
        self.daemon.one("restart")
        self.echo(session)
        self.assertEqual(session.generation, 1)
        session.close()


class Manage(unittest.TestCase):
    """A service manager that keeps descriptors, and a serve that is killed."""

    def setUp(self):
        self.daemon = manager.Service(sites=Execute.SITES)
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def restart(self):
        self.daemon.kill()
        self.daemon.start()

    def test_under_load_nothing_is_lost(self):
        generations = under_load(
            self, self.daemon, self.restart, N_RESTARTS, "kill -9 and fd store")
        self.assertEqual(set(generations), {N_RESTARTS}, "each session was resumed every time")

    def test_under_load_a_start_is_killed_as_well(self):
        dice = random.Random(1)

        def restart():
            self.daemon.kill()
            self.daemon.spawn()
            begin = time.monotonic()
            # Somewhere from its first descriptor to its first answers.
            last = dice.uniform(.5, 1.5) * self.took
            wait_until(lambda: time.monotonic() - begin > last, "a moment")
            self.restart()
        begin = time.monotonic()
        self.restart()
        self.took = time.monotonic() - begin
        generations = under_load(self, self.daemon, restart, N_RESTARTS, "killed twice each")
        self.assertTrue(all(N_RESTARTS <= g <= 2 * N_RESTARTS for g in generations), generations)

    def session(self):
        """One that is in the store."""
        before = self.n_results()
        session = Session(self.daemon.path("run/data.sock"))
        # The last of its descriptors.
        wait_until(lambda: self.n_results() == before + 1, "it is stored")
        return session

    def n_results(self):
        return sum("-results-" in name for name in list(self.daemon.manager.store))

    def test_a_graceful_restart_keeps_sessions(self):
        session = self.session()
        self.daemon.stop()
        session.submit(0, ECHO, b"x")
        # Who comes while nobody is there waits.
        other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other.connect(self.daemon.path("run/data.sock"))
        other.send(harness.HELLO)
        self.daemon.start()
        self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
        self.assertEqual(session.generation, 1)
        other.settimeout(harness.PATIENCE)
        data, fds, _, _ = socket.recv_fds(other, 4096, 4)
        self.assertNotIn(15, fields(data))
        for fd in fds:
            os.close(fd)
        other.close()
        session.close()

    def test_a_stop_answers_what_was_submitted(self):
        session = self.daemon.session()
        image = bytes(3 * PX * PX)
        self.daemon.process.send_signal(signal.SIGSTOP)
        # The first is answered at once, which is not the end of the others.
        session.submit(0, ECHO, b"x")
        for slot in range(1, 4):
            session.submit(slot, INFER, image, site="a", fmt=RGB8, width=PX, height=PX)
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.process.send_signal(signal.SIGCONT)
        # Not stop(): a second SIGTERM ends it at once.
        self.assertEqual(self.daemon.process.wait(harness.PATIENCE), 0)
        self.assertEqual([session.wait()["code"] for _ in range(4)], [0] * 4)
        session.close()

    def test_a_stop_during_a_restart_waits_for_no_decoder(self):
        folder = self.daemon.path("image")
        os.mkdir(folder)
        harness.fixture("images", folder, 0, 1)
        with open(f"{folder}/00000.png", "rb") as file:
            png = file.read()
        session = self.session()
        ingest, learner = self.daemon.role("ingest"), self.daemon.role("learner")
        os.kill(ingest, signal.SIGSTOP)
        number = session.submit(0, INFER, png, site="a")
        # Its answer shows that the other was taken before.
        session.submit(1, ECHO, b"x")
        self.assertEqual(session.take(harness.PATIENCE)["slot"], 1)
        self.daemon.process.send_signal(signal.SIGUSR2)
        # Serving pauses when the learner has ended, until ingest has or a second is over.
        wait_until(lambda: not os.path.exists(f"/proc/{learner}"), "the learner's end")
        self.daemon.process.send_signal(signal.SIGTERM)
        os.kill(ingest, signal.SIGCONT)
        self.assertEqual(self.daemon.process.wait(harness.PATIENCE), 0)
        self.assertNotIn("left without an answer", self.daemon.log())
        self.daemon.start()
        answer = session.take(harness.PATIENCE)
        self.assertEqual((answer["id"], answer["code"]), (number, 0), answer["reason"])
        session.close()

    def test_a_request_that_may_be_why_serve_ends_is_given_up(self):
        folder = self.daemon.path("images")
        os.mkdir(folder)
        harness.fixture("images", folder, 0, 1)
        with open(f"{folder}/00000.png", "rb") as file:
            png = file.read()
        session = self.session()
        os.kill(self.daemon.role("ingest"), signal.SIGSTOP)
        poison = session.submit(0, INFER, png, site="a")
        session.submit(1, ECHO, b"x")
        self.assertEqual(session.take(harness.PATIENCE)["slot"], 1)
        # As if it were its fault each time: the number of runs that the next one finds.
        state = next(fd for name, fd in self.daemon.manager.store.items()
                     if name.endswith("-state"))
        self.assertEqual(os.pread(state, 4, RUNS_AT), struct.pack("<I", 0))
        os.pwrite(state, struct.pack("<I", 2), RUNS_AT)
        self.restart()
        answer = session.take(harness.PATIENCE)
        self.assertEqual((answer["id"], answer["code"]), (poison, -5), answer["reason"])
        self.assertIn("is not run again", self.daemon.log())
        # The next in the slot begins anew.
        answer = session.submit(0, ECHO, b"x") and session.take(harness.PATIENCE)
        self.assertEqual(answer["code"], 0)
        self.assertEqual(os.pread(state, 4, RUNS_AT), struct.pack("<I", 0))
        session.close()

    def test_the_ways_follow_each_other(self):
        session = self.session()
        generation = 0
        for restart in (self.restart, lambda: self.daemon.one("restart"), self.restart,
                        lambda: self.daemon.one("restart")):
            session.submit(0, ECHO, b"x")
            restart()
            self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
            # The answer may have been there before.
            session.submit(1, ECHO, b"y")
            self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
            generation += 1
            self.assertEqual(session.generation, generation)
        names = [name for name in self.daemon.manager.store if "-results-" in name]
        wait_until(lambda: [name.split("-")[2] for name in self.daemon.manager.store
                            if "-results-" in name] == [str(generation)], f"not {names}")
        session.close()

    def test_what_is_over_is_not_stored(self):
        session = self.session()
        # A client without the feature is none of the store's business.
        old = self.daemon.session()
        old.close()
        session.close()
        wait_until(lambda: sorted(self.daemon.manager.store) == ["control", "data"],
                   "only those that listen are left")

    def test_the_end_is_seen_though_the_manager_keeps_copies(self):
        self.daemon.manager.forgets = False
        liar, broken, headless = (self.session() for _ in range(3))
        liar.submit(77, ECHO, b"x")
        wait_until(lambda: self.over(liar), "a session that was ended")
        # One that has a state of another kind, and one that has none, cannot be resumed.
        store = self.daemon.manager.store
        states = sorted((name for name in store if name.endswith("-state")),
                        key=lambda name: int(name.split("-")[0]))
        self.daemon.kill()
        os.pwrite(store[states[1]], struct.pack("<I", 77), 8)
        os.close(store.pop(states[2]))
        self.daemon.start()
        for session in (broken, headless):
            wait_until(lambda session=session: self.over(session), "one that is not resumed")
        for session in (liar, broken, headless):
            session.close()

    def test_who_comes_and_goes_is_not_stored(self):
        first = self.session()
        before = self.daemon.manager.n_stored
        for _ in range(40):
            Session(self.daemon.path("run/data.sock")).close()
        last = self.session()
        # But for those that took a second to go.
        self.assertLess(self.daemon.manager.n_stored - before, 40)
        first.close()
        last.close()

    def test_nobody_waits_for_a_manager_that_does_not_listen(self):
        listener = self.daemon.manager
        with open("/proc/sys/net/unix/max_dgram_qlen", encoding="ascii") as file:
            fill = int(file.read())
        before = self.n_results()
        listener.pause()
        sessions = [Session(self.daemon.path("run/data.sock"))
                    for _ in range(min(40, fill // 5 + 8))]
        for session in sessions:
            session.submit(0, ECHO, b"x")
            self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
        for session in sessions[4:]:
            session.close()
        listener.resume()
        wait_until(lambda: self.n_results() == before + 4, "the store is as it should be")
        self.restart()
        for session in sessions[:4]:
            session.submit(0, ECHO, b"y")
            self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
            self.assertEqual(session.generation, 1)
            session.close()

    def fill_queue(self):
        """Nothing more reaches the manager until it listens again."""
        self.daemon.manager.pause()
        try:
            while True:
                # Each of its own: one socket's buffer is full before a long queue is.
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                    sock.sendto(b"FILL", self.daemon.manager.path)
        except BlockingIOError:
            pass

    def test_a_start_waits_for_no_manager(self):
        old = self.session()
        self.daemon.kill()
        self.fill_queue()
        self.daemon.spawn()
        wait_until(lambda: self.daemon.command("status").returncode == 0, "a daemon that serves")
        for session in (old, Session(self.daemon.path("run/data.sock"))):
            session.submit(0, ECHO, b"x")
            self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
            session.close()
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration read again" in self.daemon.log(), "a reload")
        self.assertNotIn("READY=1", self.daemon.manager.heard)
        self.daemon.manager.resume()
        self.daemon.hear("READY=1")
        wait_until(lambda: sorted(self.daemon.manager.store) == ["control", "data"],
                   "the store is as it should be")

    def test_who_was_not_stored_before_a_restart_has_room_afterwards(self):
        self.daemon.stop()
        self.daemon.MAX_STORED = 13
        self.daemon.start()
        store = self.daemon.manager.store
        # It has asked for nothing yet, and is handed on all the same.
        sessions = [Session(self.daemon.path("run/data.sock"))]
        self.assertEqual(len(store), 2)
        self.daemon.one("restart")
        sessions.append(Session(self.daemon.path("run/data.sock")))
        for session in sessions:
            session.submit(0, ECHO, b"x")
            self.assertEqual(session.take(harness.PATIENCE)["code"], 0)
        wait_until(lambda: len(store) == 12, "both are stored")
        for session in sessions:
            session.close()

    def test_half_a_session_is_dropped(self):
        for part in ("-bell", "-state", "-frames", "-results-0"):
            session, whole = self.session(), self.session()
            store = self.daemon.manager.store
            name = min((name for name in store if name.endswith(part)),
                       key=lambda name: int(name.split("-")[0]))
            self.daemon.kill()
            os.close(store.pop(name))
            self.daemon.start()
            wait_until(lambda: self.over(session), f"no session without its {part}")
            self.assertFalse(self.over(whole))
            whole.submit(0, ECHO, b"x")
            self.assertEqual(whole.take(harness.PATIENCE)["code"], 0)
            session.close()
            whole.close()
            wait_until(lambda: sorted(store) == ["control", "data"], "nothing of them is left")
        self.assertIn("not all of its descriptors", self.daemon.log())

    def test_a_state_of_another_kind_is_dropped(self):
        session, store = self.session(), self.daemon.manager.store
        state = next(fd for name, fd in store.items() if name.endswith("-state"))
        self.daemon.kill()
        os.pwrite(state, struct.pack("<I", 77), 8)
        self.daemon.start()
        wait_until(lambda: self.over(session), "no session of another layout")
        self.assertIn("a kamend of another kind", self.daemon.log())
        session.close()

    def test_a_full_store_ends_sessions_at_a_kill(self):
        self.daemon.stop()
        self.daemon.MAX_STORED = 10
        self.daemon.start()
        kept = self.session()
        extra = Session(self.daemon.path("run/data.sock"))
        # Its answer shows that the store was tried before.
        extra.submit(0, ECHO, b"x")
        self.assertEqual(extra.take(harness.PATIENCE)["code"], 0)
        self.restart()
        wait_until(lambda: self.over(extra), "the one without room ends")
        self.assertIn("store is full", self.daemon.log())
        kept.submit(0, ECHO, b"x")
        self.assertEqual(kept.take(harness.PATIENCE)["code"], 0)
        kept.close()
        extra.close()

    @staticmethod
    def over(session):
        try:
            session.read_socket()
        except ConnectionError:
            return True
        return False


if __name__ == "__main__":
    unittest.main()
