# SPDX-License-Identifier: Apache-2.0
"""A daemon that has nothing to do does nothing."""

import glob
import subprocess
import time
import unittest

import harness

SECONDS = 8
# Where inotify tells of everything, so that no folder has to be looked into.
LOCAL = ("ext2/ext3", "xfs", "btrfs", "f2fs", "tmpfs", "overlayfs")
WATCHDOG_S = 4


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Idle(harness.Case):
    CONFIG = "[serve]\nworkers = 2\n"

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon(cls.CONFIG)
        cls.daemon.start(WATCHDOG_USEC=str(WATCHDOG_S * 1000000))

    def threads(self):
        """Of each thread of every role: ticks of CPU, and how often it went to sleep."""
        group = {self.daemon.process.pid}
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                head, tail = text_of(path).rsplit(")", 1)
            except OSError:
                continue
            if int(tail.split()[1]) in group:
                group.add(int(head.split()[0]))
        seen = {}
        for pid in group:
            for task in glob.glob(f"/proc/{pid}/task/*"):
                ticks = sum(int(x) for x in text_of(f"{task}/stat").rsplit(")", 1)[1].split()[11:13])
                status = text_of(f"{task}/status")
                seen[task] = ticks, int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
        return seen

    def test_it_wakes_for_its_watchdog_alone(self):
        kind = subprocess.run(["stat", "-f", "-c", "%T", self.daemon.dir], capture_output=True,
                              text=True, check=True).stdout.strip()
        if kind not in LOCAL:
            self.skipTest(f"{kind}: spools are scanned")
        for name in "ab":
            self.daemon.ctl("site", "create", name)
        folder = self.images(100, 12)
        self.spool("a", folder)
        self.daemon.ctl("push", "b", folder)
        self.daemon.ctl("infer", "b", f"{folder}/00100.png")
        harness.wait_until(lambda: self.daemon.one("site", "show", "a")["images"] == 12,
                           "the spool is read")
        harness.wait_until(self.is_idle, "rest")

    def is_idle(self):
        """Two pings in the watchdog's time; nobody else has reason to wake."""
        before = self.threads()
        time.sleep(SECONDS)
        after = self.threads()
        if before.keys() != after.keys():
            return False
        ticks = sum(after[task][0] - before[task][0] for task in after)
        wakes = sum(after[task][1] - before[task][1] for task in after)
        pings = SECONDS * 2 // WATCHDOG_S + 1
        print(f"in {SECONDS} s: {ticks} ticks, {wakes} wake-ups; "
              f"{len(before)} threads, {pings} pings at most", flush=True)
        return ticks <= 1 and wakes <= pings


if __name__ == "__main__":
    unittest.main()
