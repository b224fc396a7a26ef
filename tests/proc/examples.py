# SPDX-License-Identifier: Apache-2.0
"""The programs of client/examples do what they say, also while the daemon is restarted."""

import os
import subprocess
import sys
import unittest

import harness

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.environ["KAMEN_EXAMPLES"]
N_FILES = 30


class Examples(harness.Case):
    def setUp(self):
        if not self.daemon.ctl("site", "list"):
            self.daemon.ctl("site", "create", "a")
        folder = self.images(500, N_FILES)
        self.files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        self.env = dict(os.environ, KAMEN_RUNTIME=self.daemon.path("run"))

    def begin(self, *command):
        with open(self.daemon.path("out"), "w", encoding="utf-8") as out:
            return subprocess.Popen(command, env=self.env, text=True, stdout=out,
                                    stderr=subprocess.PIPE)

    def out(self):
        with open(self.daemon.path("out"), encoding="utf-8") as out:
            return out.read().splitlines()

    def end(self, process):
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual((process.returncode, err), (0, ""))
        return self.out()

    def check_loop(self, name):
        path = os.path.join(EXAMPLES, f"example_{name}")
        if not os.path.exists(path):
            self.skipTest(f"{name} was not built")
        for restart in False, True:
            process = self.begin(path, "a", *(self.files * (10 if restart else 1)))
            if restart:
                harness.wait_until(self.out, "the first answer")
                self.daemon.kill()
                self.daemon.start()
            lines = [line.split() for line in self.end(process)]
            # On a very busy machine a deadline may pass meanwhile: that is said, too.
            late = [line for line in lines if line[0] == "NO_VERDICT"] if restart else []
            self.assertLess(len(late), len(lines) / 2)
            self.assertEqual({line[0] for line in lines if line not in late}, {"UNKNOWN"})
            self.assertEqual(sorted(line[2] for line in lines),
                             sorted(self.files * (10 if restart else 1)))
        # Without a daemon at the start: one line.
        process = subprocess.run([path, "a", "b"], env=dict(self.env, KAMEN_RUNTIME="/nonexistent"),
                                 capture_output=True, text=True, check=False)
        self.assertEqual(process.returncode, 1)
        self.assertIn("No such file", process.stderr)
        self.assertEqual(subprocess.run([path], capture_output=True, check=False).returncode, 2)

    def test_poll(self):
        self.check_loop("poll")

    def test_sd_event(self):
        self.check_loop("sd_event")

    def test_libuv(self):
        self.check_loop("libuv")

    def test_numpy(self):
        python = next((p for p in (sys.executable, "/usr/bin/python3") if subprocess.run(
            [p, "-c", "import numpy"], stderr=subprocess.DEVNULL, check=False).returncode == 0), None)
        if not python:
            self.skipTest("there is no python3-numpy")
        program = os.path.join(HERE, "../../client/examples/embedding_numpy.py")
        files = self.files[:9] + self.files[:3]
        lines = [line.split() for line in self.end(self.begin(python, "-B", program, "a", *files))]
        self.assertEqual([line[0] for line in lines], files)
        # A file is most like itself.
        for name, nearest, cosine in lines[:3] + lines[9:]:
            self.assertEqual((name, cosine), (nearest, "1.0000"))


if __name__ == "__main__":
    unittest.main()
