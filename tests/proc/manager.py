# SPDX-License-Identifier: Apache-2.0
"""A service manager, of systemd's manners as much as serve can tell."""

import os
import select
import socket
import subprocess

import harness


class Manager(harness.Notes):
    """Of systemd's manners as much as it takes to keep descriptors and to start a service again."""

    def __init__(self, path):
        self.store = {}
        self.forgets = True
        self.n_stored = 0  # ever
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
                self.n_stored += 1
            elif "FDSTOREREMOVE=1" in lines:
                if self.forgets and name in self.store:
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
