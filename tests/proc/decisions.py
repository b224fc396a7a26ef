# SPDX-License-Identifier: Apache-2.0
"""Masks that come from outside, and the audit of what was decided: whole, changed, cut."""

import contextlib
import json
import os
import signal
import sqlite3
import unittest

import harness
from harness import Daemon, fixture, wait_until


class Case(unittest.TestCase):
    def daemon_with(self, config=""):
        daemon = Daemon(config)
        self.addCleanup(daemon.close)
        return daemon

    def images(self, daemon, first, n):
        folder = daemon.path(f"images-{first}-{n}")
        os.makedirs(folder, exist_ok=True)
        fixture("images", folder, first, n)
        return folder

    def site(self, daemon, name):
        daemon.ctl("site", "create", name, "--set", "policy=manual")
        daemon.ctl("push", name, self.images(daemon, 0, 48))

    def tool(self, daemon, *args):
        return json.loads(daemon.command(*args, "--json").stdout)


class Import(Case):
    def setUp(self):
        self.daemon = self.daemon_with()
        self.keys = self.daemon.path("keys")
        self.daemon.write("kamend.conf",
                          f"[mask]\nrequire_signature = on\ntrusted_keys = {self.keys}\n")
        self.mask = self.daemon.path("a.kmask")

    def signed(self, key):
        name = self.daemon.path(f"{key}.kmask")
        self.tool(self.daemon, "mask", "sign", self.mask, "--key", self.daemon.path(key), "--output", name)
        return name

    def patched(self, change):
        with open(self.mask, "rb") as file:
            data = bytearray(file.read())
        change(data)
        path = self.daemon.path("patched.kmask")
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_what_is_wrong_with_a_mask_is_said_and_only_a_trusted_one_comes_in(self):
        daemon = self.daemon.start()
        self.site(daemon, "a")
        fixture("mend", daemon.model, self.mask)
        known = self.tool(daemon, "mask", "keygen", daemon.path("known"), "--name", "the plant")
        self.tool(daemon, "mask", "keygen", daemon.path("stranger"))
        self.assertEqual(os.stat(daemon.path("known")).st_mode & 0o777, 0o600)
        self.assertIn("exists", daemon.error("mask", "keygen", daemon.path("known")))

        def refused(path, *words):
            said = daemon.error("mask", "import", "a", path)
            for word in words:
                self.assertIn(word, said)

        refused(self.mask, "not signed", "require_signature")
        refused(self.signed("known"), "keys", "cannot be read")
        os.rename(daemon.path("known.pub"), self.keys)
        refused(self.signed("stranger"), "does not list")
        refused(self.patched(lambda data: data.pop()), "truncated")
        refused(self.patched(lambda data: data.__setitem__(60, data[60] ^ 1)), "checksum of the header")
        refused(self.patched(lambda data: data.__setitem__(-9, data[-9] ^ 1)), "checksum of tensor")
        refused(self.patched(lambda data: data.__setitem__(0, 0)), "not a mask file")
        other = daemon.path("other.safetensors")
        fixture("model", other, 12, "whole")
        fixture("mend", other, self.mask)
        refused(self.signed("known"), "made for base")
        self.assertEqual(daemon.ctl("mask", "list", "a"), [])

        fixture("mend", daemon.model, self.mask)
        path = self.signed("known")
        said = self.tool(daemon, "mask", "verify", path, "--keys", self.keys)
        self.assertEqual(said["signer"], known["key"])
        self.assertLessEqual(said["payload_bytes"], said["entropy_bytes"] * 1.02 + 2 * said["tensors"])
        self.assertIn("does not list",
                      daemon.error("mask", "verify", self.signed("stranger"), "--keys", self.keys))
        self.assertIn("not signed", daemon.error("mask", "verify", self.mask, "--keys", self.keys))
        self.assertEqual(daemon.one("mask", "import", "a", path)["version"], 1)
        rows = daemon.ctl("audit", "show", "--site", "a", "--last", "0")
        self.assertEqual([row["what"] for row in rows],
                         ["site.create"] + ["mask.refuse"] * 8 + ["mask.import"])
        self.assertIn(f"signed by {known['key']}, trusted", rows[-1]["detail"])
        self.assertTrue(all(f"by uid {os.getuid()}" in row["detail"] for row in rows))

    def test_versions_and_files_are_compared_by_the_bits_that_flip(self):
        self.daemon.write("kamend.conf", "")
        daemon = self.daemon.start()
        self.site(daemon, "a")
        fixture("mend", daemon.model, self.mask)
        daemon.one("mask", "import", "a", self.mask)
        wait_until(lambda: daemon.one("mask", "show", "a", 1)["state"] != "learning", "judged")
        forth, back = daemon.one("mask", "diff", "a", 0, 1), daemon.one("mask", "diff", "a", 1, 0)
        self.assertGreater(forth["flips"], 0)
        self.assertEqual((forth["dropped"], forth["restored"]), (forth["flips"], 0))
        self.assertEqual((back["dropped"], back["restored"]), (0, forth["flips"]))
        self.assertEqual([t["tensor"] for t in forth["tensors"]], ["blocks.1.attn.proj.weight"])
        copy = daemon.path("1.kmask")
        daemon.ctl("mask", "export", "a", 1, copy)
        # The learner writes it anew, with the round's seed: other bytes, the same bits.
        self.assertEqual(daemon.one("mask", "diff", self.mask, copy)["flips"], 0)


class Audit(Case):
    def change(self, daemon, *statements):
        daemon.stop()
        with sqlite3.connect(daemon.path("state/state.db")) as db:
            for statement in statements:
                db.execute(statement)
        db.close()
        daemon.start()

    def head(self, daemon):
        """The last one that the journal got."""
        return daemon.log().split("audit: ")[-1].split("head ")[1].split()[0]

    def test_a_changed_row_and_a_cut_end_are_found(self):
        daemon = self.daemon_with().start()
        self.assertEqual(daemon.one("audit", "verify")["rows"], 0)
        self.site(daemon, "a")
        learnt = daemon.ctl("learn", "a", "--steps", "2", "--wait")[-1]
        daemon.ctl("site", "create", "b")
        daemon.ctl("site", "delete", "b", "--yes")
        rows = daemon.ctl("audit", "show")
        self.assertEqual([(row["site"], row["what"]) for row in rows],
                         [("a", "site.create"), ("a", "round.begin"), ("a", "round.end"),
                          ("b", "site.create"), ("b", "site.delete")])
        self.assertIn("policy=manual", rows[0]["detail"])
        self.assertIn("48 images", rows[1]["detail"])
        for reason in learnt["gate"]["reasons"]:
            self.assertIn(reason, rows[2]["detail"])
        self.assertEqual(daemon.ctl("audit", "show", "--last", "2"), rows[3:])
        self.assertEqual(daemon.ctl("audit", "show", "--site", "a", "--last", "1"), rows[2:3])
        head = self.head(daemon)
        said = daemon.one("audit", "verify", "--head", head)
        self.assertEqual((said["intact"], said["rows"], said["head"], said["found_at"]),
                         (True, 5, head, 5))

        exported = daemon.path("audit.jsonl")
        text = daemon.command("audit", "export").stdout
        self.assertEqual([json.loads(line) for line in text.splitlines()], rows)
        daemon.write("audit.jsonl", text)
        self.assertEqual(daemon.one("audit", "verify", "--file", exported)["head"], head)
        daemon.write("audit.jsonl", text.replace("48 images", "47 images"))
        self.assertIn("row 2 was changed", daemon.error("audit", "verify", "--file", exported))

        self.change(daemon, "DELETE FROM audit WHERE seq = 5")
        self.assertEqual(daemon.one("audit", "verify")["rows"], 4, "the chain itself is whole")
        self.assertIn("cut", daemon.error("audit", "verify", "--head", head))
        self.change(daemon, "UPDATE audit SET detail = 'by uid 0' WHERE seq = 2")
        self.assertIn("row 2 was changed", daemon.error("audit", "verify"))
        self.assertIn("row 2 was changed", daemon.log(), "and is said at the start")
        self.change(daemon, "DELETE FROM audit WHERE seq = 2")
        self.assertIn("row 2 is missing", daemon.error("audit", "verify"))

    def test_settings_that_a_reload_changes_are_recorded(self):
        daemon = self.daemon_with("[site]\nnovelty_threshold = .99\n").start()
        daemon.ctl("site", "create", "a")
        daemon.ctl("site", "create", "own", "--set", "novelty_threshold=.9")
        daemon.write("kamend.conf", "[site]\nnovelty_threshold = .95\n")
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("READY=1")
        row = daemon.one("audit", "show")
        self.assertEqual((row["seq"], row["site"], row["what"]), (3, "a", "site.settings"))
        self.assertIn("novelty_threshold from '0.99' to '0.95'", row["detail"])

        def threshold():
            return float(daemon.one("site", "show", "a")["settings"]["novelty_threshold"])

        # What cannot be recorded does not come into force.
        with contextlib.closing(sqlite3.connect(daemon.path("state/state.db"))) as db:
            db.isolation_level = None
            db.execute("BEGIN IMMEDIATE")
            daemon.write("kamend.conf", "[site]\nnovelty_threshold = .9\n")
            daemon.deaf()
            daemon.process.send_signal(signal.SIGHUP)
            daemon.hear("READY=1")
            self.assertEqual(threshold(), .95)
            self.assertIn("the audit cannot be written, its settings stay", daemon.log())
            db.execute("ROLLBACK")
        daemon.deaf()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hear("READY=1")
        self.assertEqual(threshold(), .9)
        self.assertIn("from '0.95' to '0.9'", daemon.one("audit", "show", "--last", "1")["detail"])

    def test_an_audit_of_many_pages_is_walked_to_its_end(self):
        daemon = self.daemon_with().start()
        for i in range(300):
            daemon.ctl("site", "create", f"s{i}")
        self.assertEqual(len(daemon.ctl("audit", "export")), 300)
        self.assertEqual(daemon.one("audit", "verify")["rows"], 300)
        self.assertEqual(len(daemon.ctl("audit", "show")), 50)
        self.assertEqual([row["seq"] for row in daemon.ctl("audit", "show", "--last", "290")],
                         list(range(11, 301)))


if __name__ == "__main__":
    unittest.main()
