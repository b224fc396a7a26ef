# SPDX-License-Identifier: Apache-2.0
"""README's two programs do what it says of them."""

import os
import re
import subprocess
import sys
import unittest

import harness

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
LIBRARY = os.environ["KAMEN_LIBRARY"]


def program(language):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return re.search(f"```{language}\n(.*?)```", file.read(), re.S).group(1)


class Readme(harness.Case):
    def setUp(self):
        if not self.daemon.ctl("site", "list"):
            self.daemon.ctl("site", "create", "a")
        self.image = os.path.join(self.images(500, 1), "00500.png")

    def check(self, *command):
        env = dict(os.environ, KAMEN_RUNTIME=self.daemon.path("run"))
        done = subprocess.run([*command, "a", self.image], env=env, capture_output=True, text=True,
                              check=True)
        verdict, embedding = done.stdout.splitlines()
        self.assertEqual(verdict.split()[0], "UNKNOWN")
        known = self.daemon.one("infer", "a", self.image, "--embedding")["embedding"]
        self.assertEqual([f"{float(x):g}" for x in embedding.split()], [f"{x:g}" for x in known])

    def test_the_c_program_gets_a_verdict_and_an_embedding(self):
        source = program("c")
        self.assertLessEqual(source.count("\n"), 25)
        self.daemon.write("show.c", source)
        subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o",
                        self.daemon.path("show"), self.daemon.path("show.c"),
                        "-I", os.path.join(ROOT, "client/include"), LIBRARY,
                        f"-Wl,-rpath,{os.path.dirname(LIBRARY)}"], check=True)
        self.check(self.daemon.path("show"))

    def test_the_python_program_does_too(self):
        source = program("python")
        self.assertLessEqual(source.count("\n"), 10)
        self.daemon.write("show.py", source)
        self.check(sys.executable, "-B", self.daemon.path("show.py"))


if __name__ == "__main__":
    unittest.main()
