# SPDX-License-Identifier: Apache-2.0
"""state.db and the files beside it, read without any of the daemon's code."""

import contextlib
import glob
import hashlib
import os
import sqlite3
import struct

from harness import fixture


def digest(data):
    return hashlib.blake2b(data, digest_size=32).digest()


@contextlib.contextmanager
def database(state):
    """Also beside a daemon that is writing."""
    db = sqlite3.connect(os.path.join(state, "state.db"), timeout=10)
    try:
        yield db
    finally:
        db.close()


def chain(db):
    """Hashes of the audit's rows, each checked against what it must be."""
    hashes, head = [], bytes(32)
    for seq, time_us, site, what, detail, prev, own in db.execute(
            "SELECT seq, time_us, site, what, detail, prev, hash FROM audit ORDER BY seq"):
        assert seq == len(hashes) + 1, f"audit row {len(hashes) + 1} is missing"
        assert prev == head, f"audit row {seq} does not follow its predecessor"
        text = b"".join(s.encode() + b"\0" for s in (site, what, detail))
        head = digest(b"kamen audit 1\0" + prev + struct.pack("<QQ", seq, time_us) + text)
        assert own == head, f"audit row {seq} was changed"
        hashes.append(head)
    return hashes


class Evidence:
    """What was promised so far, and that it holds."""

    def __init__(self, state):
        self.state = state
        self.promised = {}  # site -> hashes of what was accepted
        self.chain = []

    def promise(self, site, data):
        self.promised.setdefault(site, set()).add(digest(data))

    def promise_done(self, site):
        """What lies in done/ was accepted."""
        for path in glob.glob(os.path.join(self.state, "spool", site, "done", "*")):
            with open(path, "rb") as file:
                self.promise(site, file.read())

    def images(self, db, site):
        """Hash -> blob of what the site has; every blob is there in its size."""
        rows = {}
        for digest_, blob, n_bytes in db.execute(
                "SELECT hash, blob, n_bytes FROM image WHERE site_id = "
                "(SELECT id FROM site WHERE name = ?)", (site,)):
            path = os.path.join(self.state, "sites", site, "replay", blob)
            assert os.path.getsize(path) == n_bytes, path
            rows[digest_] = path
        return rows

    def check(self, db):
        """At any time: nothing promised is lost, the chain goes on where it was."""
        for site, promised in self.promised.items():
            lost = promised - set(self.images(db, site))
            assert not lost, f"site {site}: {len(lost)} of {len(promised)} accepted images are lost"
        hashes = chain(db)
        assert hashes[:len(self.chain)] == self.chain, "rows of the audit are gone"
        assert not db.execute("SELECT 1 FROM audit WHERE what = 'image.lost'").fetchone()
        self.chain = hashes

    def check_stopped(self, db):
        """Of a daemon that has ended in order: no row without a file, no file without a row."""
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        for (site,) in db.execute("SELECT name FROM site").fetchall():
            folder = os.path.join(self.state, "sites", site, "replay")
            found = {os.path.join(folder, name) for name in os.listdir(folder)}
            rows = set(self.images(db, site).values())
            assert rows == found, f"site {site}: rows and blobs differ by {rows ^ found}"
            for part in range(0, len(rows), 500):
                fixture("kimg", *sorted(rows)[part:part + 500])
        torn = glob.glob(self.state + "/**/*.tmp", recursive=True)
        assert torn == [], torn
