# SPDX-License-Identifier: Apache-2.0
"""Classes by example: told apart from the next request on, and by every champion that follows."""

import glob
import os
import random
import select
import signal
import sqlite3
import threading
import unittest

import harness
import zmq_client

SIDE = 48


def picture(kind, number):
    """A picture of a kind, as PGM: kinds look unlike each other, their pictures alike."""
    draw = random.Random(f"{kind} {number}")
    shift = draw.randrange(3)

    def pixel(x, y):
        if kind == "stripes":
            return 230 if (x + shift) // 6 % 2 else 20
        if kind == "checks":
            return 200 if ((x + shift) // 12 + y // 12) % 2 else 60
        if kind == "dark":
            return 8
        if kind == "ring":
            return 250 if 120 < (x - 24 + shift) ** 2 + (y - 24) ** 2 < 420 else 110
        return 128
    rows = [min(255, max(0, pixel(x, y) + draw.randrange(-4, 5)))
            for y in range(SIDE) for x in range(SIDE)]
    return f"P5 {SIDE} {SIDE} 255\n".encode() + bytes(rows)


class Case(harness.Case):
    def pictures(self, kind, first, n):
        folder = self.daemon.path(f"pictures-{kind}")
        os.makedirs(folder, exist_ok=True)
        paths = []
        for i in range(first, first + n):
            paths.append(os.path.join(folder, f"{i:05}.pgm"))
            # Others may be reading what is there.
            if not os.path.exists(paths[-1]):
                with open(paths[-1], "wb") as file:
                    file.write(picture(kind, i))
        return paths

    def site(self, name, *settings):
        sets = [word for setting in settings for word in ("--set", setting)]
        self.daemon.ctl("site", "create", name, *sets)

    def add(self, site, kind, n=4, first=0, name=None):
        return self.daemon.one("class", "add", site, name or kind, *self.pictures(kind, first, n))

    def classes(self, site):
        return {row["class"]: row["images"] for row in self.daemon.ctl("class", "list", site)}

    def labels(self, site, kind, n=4, *args):
        """What pictures that nobody has shown yet are said to be."""
        rows = self.daemon.ctl("infer", site, *self.pictures(kind, 500, n), *args)
        return [row["label"] for row in rows]

    def decisions(self, site, what):
        return [row["detail"] for row in self.daemon.ctl("audit", "show", "--site", site)
                if row["what"] == what]


class Classes(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.daemon.write("kamend.conf", "[site]\npolicy = manual\n[zmq]\nrouter = ipc://" +
                         cls.daemon.path("router") + "\n")
        cls.daemon.start()

    def test_a_class_is_told_apart_from_the_next_request_on(self):
        self.site("live")
        row = self.daemon.one("infer", "live", *self.pictures("stripes", 500, 1))
        self.assertEqual((row["label"], row["score"], row["unknown"]), (None, None, None))
        row = self.add("live", "stripes")
        self.assertEqual((row["class"], row["images"]), ("stripes", 4))
        self.assertEqual(self.labels("live", "stripes"), ["stripes"] * 4)
        self.add("live", "checks", 3)
        self.add("live", "dark", 1, name="zu dunkel, ä")
        self.assertEqual(self.classes("live"), {"stripes": 4, "checks": 3, "zu dunkel, ä": 1})
        self.assertEqual(self.labels("live", "stripes"), ["stripes"] * 4)
        self.assertEqual(self.labels("live", "checks"), ["checks"] * 4)
        self.assertEqual(self.labels("live", "dark"), ["zu dunkel, ä"] * 4)
        self.daemon.ctl("class", "remove", "live", "checks")
        self.assertNotIn("checks", self.labels("live", "checks"))
        uid = os.getuid()
        self.assertEqual(self.decisions("live", "class.add"),
                         [f"'stripes' of 4 images by uid {uid}", f"'checks' of 3 images by uid {uid}",
                          f"'zu dunkel, ä' of 1 images by uid {uid}"])
        self.assertEqual(self.decisions("live", "class.remove"), [f"'checks' by uid {uid}"])
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.classes("live"), {"stripes": 4, "zu dunkel, ä": 1})
        self.assertEqual(self.labels("live", "stripes"), ["stripes"] * 4)
        self.daemon.ctl("audit", "verify")

    def test_a_list_says_how_sure_each_class_is(self):
        self.site("sure")
        self.add("sure", "stripes", 4)
        row = self.daemon.one("class", "list", "sure")
        self.assertEqual((row["judged"], row["right"], row["confidence"]), (0, 0, None))
        self.add("sure", "dark", 4)
        self.add("sure", "ring", 1)
        rows = {row["class"]: row for row in self.daemon.ctl("class", "list", "sure")}
        for name in ("stripes", "dark"):
            self.assertEqual((rows[name]["judged"], rows[name]["right"]), (4, 4))
            self.assertTrue(.6 < rows[name]["confidence"] < 1, rows[name])
        self.assertEqual((rows["ring"]["judged"], rows["ring"]["confidence"]), (0, None))

    def test_what_fits_no_class_is_of_none(self):
        self.site("open")
        for kind in ("stripes", "checks", "dark"):
            self.add("open", kind, 8)
        for row in self.daemon.ctl("infer", "open", *self.pictures("ring", 500, 8)):
            self.assertEqual((row["label"], row["score"], row["code"]), (None, None, 0))
            self.assertGreater(row["unknown"], .5)
        rows = self.daemon.ctl("infer", "open", *self.pictures("checks", 500, 8))
        known = [row for row in rows if row["label"] == "checks"]
        self.assertGreaterEqual(len(known), 7)
        for row in known:
            self.assertLessEqual(row["unknown"], .5)
            self.assertTrue(.5 < row["score"] <= 1)
        self.add("open", "ring", 8)
        self.assertGreaterEqual(self.labels("open", "ring", 8).count("ring"), 7)
        metrics = self.daemon.command("metrics").stdout
        self.assertIn('kamen_classes{site="open"} 4', metrics)
        self.assertRegex(metrics, r'kamen_classified_total\{site="open"\} 1[4-6]\n')
        self.assertRegex(metrics, r'kamen_unclassified_total\{site="open"\} ([89]|10)\n')
        self.assertRegex(metrics, r"kamen_supports_embedded_total [1-9]")
        self.assertIn("kamen_supports_failed_total 0", metrics)

    def test_one_image_a_class_is_enough_to_tell_them_apart(self):
        self.site("few")
        for kind in ("stripes", "checks", "dark", "ring"):
            self.add("few", kind, 1)
        for kind in ("stripes", "checks", "dark", "ring"):
            self.assertEqual(self.labels("few", kind), [kind] * 4)
        # Nothing says how far apart images of a class may be.
        row = self.daemon.one("infer", "few", *self.pictures("ring", 600, 1))
        self.assertIsNone(row["unknown"])

    def test_every_way_to_ask_hears_of_the_class(self):
        self.site("ways")
        for kind in ("stripes", "checks"):
            self.add("ways", kind, 8)
        sock = zmq_client.Socket(zmq_client.DEALER, f"ipc://{self.daemon.path('router')}")
        asked = self.daemon.one("infer", "ways", *self.pictures("checks", 500, 1))
        self.assertTrue(sock.send(zmq_client.request(5, site="ways"), picture("checks", 500)))
        answer = zmq_client.reply(sock.receive())
        self.assertEqual((answer["id"], answer["label"]), (5, "checks"))
        self.assertAlmostEqual(answer["score"], asked["score"], 6)
        self.assertAlmostEqual(answer["unknown"], asked["unknown"], 6)
        self.assertTrue(sock.send(zmq_client.request(6, site="ways"), picture("ring", 500)))
        answer = zmq_client.reply(sock.receive())
        self.assertEqual((answer["label"], answer["score"]), ("", None))
        self.assertGreater(answer["unknown"], .5)
        sock.close()

    def test_what_cannot_be_added_is_one_clear_error(self):
        self.site("strict")
        stripes = self.pictures("stripes", 0, 3)
        broken = self.daemon.path("broken.pgm")
        with open(broken, "wb") as file:
            file.write(b"P5 48 48 255\n but no more")
        error = self.daemon.error
        self.assertIn("no site 'none'", error("class", "add", "none", "a", *stripes))
        self.assertIn("no site 'none'", error("class", "list", "none"))
        self.assertIn("no site 'none'", error("class", "remove", "none", "a"))
        self.assertIn("broken.pgm: ", error("class", "add", "strict", "a", stripes[0], broken))
        self.assertIn("No such file", error("class", "add", "strict", "a", broken + "x"))
        self.assertIn("a class has 1 to 16",
                      error("class", "add", "strict", "a", *self.pictures("checks", 0, 17)))
        self.assertEqual(self.classes("strict"), {})
        self.keeps("strict", 0)
        self.add("strict", "stripes", 3)
        self.assertIn("there is a class 'stripes' already",
                      error("class", "add", "strict", "stripes", *self.pictures("dark", 0, 1)))
        self.assertIn("is one of class 'stripes'",
                      error("class", "add", "strict", "dark", stripes[1]))
        # One that came for it and one of another class, which stays.
        self.assertIn("is one of class 'stripes'", error(
            "class", "add", "strict", "dark", *self.pictures("dark", 5, 1), stripes[1]))
        self.keeps("strict", 3)
        self.assertIn("no class dark", error("class", "remove", "strict", "dark"))
        self.daemon.ctl("site", "freeze", "strict")
        self.assertIn("frozen", error("class", "add", "strict", "dark", stripes[0]))
        self.assertIn("frozen", error("class", "remove", "strict", "stripes"))
        for args in (("add", "strict", "a"), ("add", "strict", "x" * 64, stripes[0]),
                     ("add", "Strict", "a", stripes[0]), ("remove", "strict"), ("list",)):
            done = self.daemon.command("class", *args)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1), args)
        self.assertEqual(self.classes("strict"), {"stripes": 3})
        self.assertEqual(len(self.decisions("strict", "class.add")), 1)

    def keeps(self, site, n):
        self.assertEqual(self.daemon.one("site", "show", site)["images"], n)
        self.assertEqual(len(glob.glob(self.daemon.path(f"state/sites/{site}/replay/*"))), n)

    def test_a_site_with_all_its_classes_is_given_no_image(self):
        self.site("full")
        for i in range(64):
            self.add("full", "dark", 1, i, f"class {i}")
        before = self.daemon.one("site", "show", "full")["images"]
        error = self.daemon.error("class", "add", "full", "more", *self.pictures("ring", 0, 3))
        self.assertIn("it has 64 classes, and may have no more", error)
        self.keeps("full", before)

    def test_messages_that_make_no_sense_are_answered(self):
        self.site("wild")
        field, varint = harness.field, harness.varint

        def part(number, data):
            return varint(number << 3 | 2) + varint(len(data)) + data

        def ask(message, verb=100):
            sock = self.daemon.control()
            sock.send(field(1, 1) + part(2, field(1, 1) + field(2, 0)))
            sock.recv(65536)
            sock.send(field(1, 2) + part(verb, message))
            answer = harness.fields(sock.recv(65536))
            sock.close()
            return harness.fields(answer[3])[2].decode()

        site, image = part(1, b"wild"), part(3, part(1, b"h" * 32))
        for message, text in (
                (site + part(2, b"a"), "0 images"),
                (site + part(2, b"a") + image * 17, "17 images"),
                (site + part(2, b"a") + part(3, part(1, b"short")), "image 0 has no hash"),
                (site + part(2, b"a") + image, "image 0 is not there"),
                (site + part(2, b"a") + image * 2, "image 1 is image 0"),
                (site + part(2, b"\xff") + image, "not a class's name"),
                (site + part(2, b"") + image, "not a class's name"),
                (site + part(2, b"a\nb") + image, "not a class's name"),
                (part(1, b"absent") + part(2, b"a") + image, "no site")):
            self.assertIn(text, ask(message))
        self.assertIn("not a class's name", ask(site + part(2, b"a\nb"), verb=102))
        self.assertIn("no site", ask(part(1, b"absent"), verb=140))
        self.assertIn("Bad message", ask(site + part(2, b"short"), verb=140))
        self.assertIn("too long", ask(site + part(2, b"h" * 32) * 17, verb=140))
        self.lives()

    def test_what_came_for_a_class_is_not_learnt_from_and_goes_with_it(self):
        self.site("apart")
        line = self.images(0, 48)
        self.daemon.ctl("push", "apart", line)
        # One of the line's own: it stays what it was.
        own = os.path.join(line, sorted(os.listdir(line))[0])
        self.daemon.ctl("class", "add", "apart", "usual", own)
        self.add("apart", "dark", 3)
        self.assertEqual(self.daemon.one("site", "show", "apart")["images"], 51)
        self.daemon.ctl("learn", "apart", "--steps", "4", "--wait")
        self.assertEqual(self.daemon.one("mask", "show", "apart", "1")["images"], 48)
        self.daemon.ctl("class", "remove", "apart", "dark")
        self.daemon.ctl("class", "remove", "apart", "usual")
        self.assertEqual(self.daemon.one("site", "show", "apart")["images"], 48)
        self.assertEqual(len(glob.glob(self.daemon.path("state/sites/apart/replay/*"))), 48)

    def test_supports_outlive_the_store_around_them(self):
        self.site("small", "replay_bytes=1M")
        self.add("small", "stripes", 16)
        self.add("small", "checks", 16)
        # Some three hundred fill the store.
        self.daemon.ctl("push", "small", self.images(1000, 400))
        self.assertLess(self.daemon.one("site", "show", "small")["images"], 400)
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.classes("small"), {"stripes": 16, "checks": 16})
        self.daemon.ctl("class", "remove", "small", "checks")
        self.assertEqual(self.labels("small", "stripes"), ["stripes"] * 4)

    def test_another_preprocessing_looks_at_the_supports_anew(self):
        self.site("sized")
        self.add("sized", "stripes")
        self.add("sized", "checks")
        before = self.daemon.one("infer", "sized", *self.pictures("checks", 500, 1))
        os.makedirs(self.daemon.path("sites.d"), exist_ok=True)
        self.daemon.write("sites.d/sized.conf", "[site]\ninput_px = 64\n")
        self.daemon.deaf()
        self.daemon.process.send_signal(signal.SIGHUP)
        self.daemon.hear("RELOADING=1")
        self.daemon.hear("READY=1")
        harness.wait_until(lambda: self.labels("sized", "checks", 1) == ["checks"], "the supports")
        after = self.daemon.one("infer", "sized", *self.pictures("checks", 500, 1))
        self.assertNotEqual(before["space"], after["space"])
        self.assertNotEqual(before["unknown"], after["unknown"])
        os.unlink(self.daemon.path("sites.d/sized.conf"))

    def test_several_may_change_classes_at_once(self):
        self.site("busy")
        kinds = ["stripes", "checks", "dark", "ring"]
        for kind in kinds:
            self.pictures(kind, 0, 4)
        failed = []

        def add(kind):
            try:
                self.add("busy", kind)
            except AssertionError as error:
                failed.append(error)
        threads = [threading.Thread(target=add, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        self.assertEqual(self.classes("busy"), {kind: 4 for kind in kinds})
        for kind in kinds:
            self.assertEqual(self.labels("busy", kind), [kind] * 4)

    def test_a_site_that_goes_takes_its_classes_along(self):
        self.site("gone")
        self.add("gone", "stripes")
        self.daemon.ctl("site", "delete", "gone", "--yes")
        self.site("gone")
        self.assertEqual(self.classes("gone"), {})
        self.assertEqual(self.labels("gone", "stripes", 1), [None])


class Champions(Case):
    """What becomes of classes when the mask does."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon(flawed=True)
        cls.daemon.start()
        cls.kmask = cls.daemon.path("mended.kmask")
        harness.fixture("mend", cls.daemon.model, cls.kmask)

    def candidate(self, name, *settings):
        """A site with classes, and a version that passes the gate."""
        self.site(name, *settings)
        self.daemon.push_in_order(name, self.images(20000, 480))
        for kind in ("stripes", "checks", "dark"):
            self.add(name, kind)
        return self.judged(name)

    def judged(self, name):
        version = self.daemon.one("mask", "import", name, self.kmask)["version"]
        harness.wait_until(
            lambda: self.daemon.one("mask", "show", name, version)["state"] != "learning",
            "the imported mask is judged")
        return version

    def spaces(self, name):
        """Space -> how many images of the site's classes it knows."""
        with sqlite3.connect(f"file:{self.daemon.path('state/state.db')}?mode=ro",
                             uri=True) as database:
            rows = database.execute(
                "SELECT hex(space), count(*) FROM feature JOIN support USING (image_id) "
                "JOIN site ON site.id = site_id WHERE site.name = ? GROUP BY space", (name,))
            return {space.lower(): n for space, n in rows}

    def looked(self):
        """At how many images, for classes."""
        for line in self.daemon.command("metrics").stdout.splitlines():
            if line.startswith("kamen_supports_embedded_total "):
                return int(line.split()[1])
        raise AssertionError("no such metric")

    def ask(self, name, kind):
        row = self.daemon.one("infer", name, *self.pictures(kind, 500, 1))
        return row["mask"], row["label"], row["unknown"]

    def test_a_promotion_and_a_rollback_take_the_classes_along(self):
        version = self.candidate("s", "policy=manual", "watch_answers=0")
        before = {kind: self.ask("s", kind) for kind in ("stripes", "checks", "dark")}
        stop, seen = threading.Event(), []

        def watch():
            paths = self.pictures("stripes", 500, 4)
            while not stop.is_set():
                seen.extend((row["mask"], row["label"]) for row in
                            self.daemon.ctl("infer", "s", *paths))
        thread = threading.Thread(target=watch)
        thread.start()
        self.daemon.ctl("mask", "promote", "s", version)
        after = {kind: self.ask("s", kind) for kind in before}
        self.daemon.ctl("mask", "rollback", "s")
        self.assertEqual({kind: self.ask("s", kind) for kind in before}, before)
        self.daemon.ctl("mask", "promote", "s", version)
        stop.set()
        thread.join()
        self.assertEqual({label for _, label in seen}, {"stripes"})
        for kind, (mask, label, unknown) in after.items():
            self.assertEqual((mask, label), (version, kind))
            self.assertNotEqual(unknown, before[kind][2])
        # Both the champion and what a rollback goes back to know every support, and nobody else.
        self.assertEqual(sorted(self.spaces("s").values()), [12, 12])
        # What came of the line meanwhile is not looked at first: the way back is short.
        self.daemon.ctl("push", "s", self.images(30000, 8))
        looked = self.looked()
        self.daemon.ctl("mask", "rollback", "s")
        self.assertEqual(self.looked(), looked)
        self.daemon.ctl("mask", "promote", "s", version)
        # A class that comes later is known to the predecessor, too.
        self.add("s", "ring")
        self.daemon.ctl("mask", "rollback", "s")
        self.assertEqual(self.ask("s", "ring")[:2], (0, "ring"))
        self.daemon.ctl("mask", "promote", "s", version)
        unknown = self.ask("s", "checks")[2]
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.ask("s", "checks"), (version, "checks", unknown))
        self.daemon.ctl("site", "reset", "s", "--yes")
        self.assertEqual(self.ask("s", "ring")[:2], (0, "ring"))
        self.daemon.ctl("audit", "verify")

    def test_a_version_that_promotes_itself_and_falls_takes_them_along(self):
        version = self.candidate("t", "policy=auto", "watch_answers=300")
        harness.wait_until(
            lambda: self.daemon.one("mask", "show", "t", version)["state"] == "champion",
            "the promotion")
        self.assertEqual(self.ask("t", "checks")[:2], (version, "checks"))
        session, rng = self.daemon.session(), random.Random(7)
        for _ in range(200):
            answer = session.ask(0, harness.INFER, rng.randbytes(3072), site="t",
                                 fmt=harness.RGB8, width=32, height=32)
            if answer["version"] == 0:
                break
        session.close()
        self.assertEqual(self.ask("t", "checks")[:2], (0, "checks"))
        self.assertIn("rolled back to version 0", self.daemon.log())

    def test_a_shadow_that_is_promoted_knows_them(self):
        version = self.candidate("u", "policy=shadow", "shadow_share=1", "watch_answers=0")
        self.assertEqual(self.daemon.one("site", "show", "u")["shadow"], version)
        self.assertEqual(self.ask("u", "dark")[:2], (0, "dark"))
        self.daemon.ctl("mask", "promote", "u", version)
        self.assertEqual(self.ask("u", "dark")[:2], (version, "dark"))

    def test_a_kill_at_any_moment_loses_nothing(self):
        version = self.candidate("k", "policy=manual", "watch_answers=0")
        seed = int.from_bytes(os.urandom(4), "little")
        print(f"seed {seed}", flush=True)
        draw = random.Random(seed)
        expected = set(self.classes("k"))
        kinds = ["stripes", "checks", "dark", "ring"]
        for turn in range(6):
            name = f"ring {turn}"
            files = self.pictures("ring", 10 * turn, 6)
            verb = draw.choice([("class", "add", "k", name, *files),
                                ("mask", "promote", "k", version), ("mask", "rollback", "k")])
            thread = threading.Thread(target=self.daemon.command, args=verb)
            thread.start()
            draw_ms = draw.uniform(0, 60)
            select.select([], [], [], draw_ms / 1000)
            self.daemon.kill()
            thread.join()
            self.daemon.start()
            classes = self.classes("k")
            self.assertLessEqual(set(classes) - {name}, expected, verb)
            self.assertLessEqual(expected, set(classes), verb)
            self.assertEqual(len(self.decisions("k", "class.add")) -
                             len(self.decisions("k", "class.remove")), len(classes), verb)
            champion = self.daemon.one("site", "show", "k")["champion"]
            for kind in kinds[:3]:
                self.assertEqual(self.ask("k", kind)[:2], (champion, kind), verb)
            if name in classes:
                self.assertEqual(self.ask("k", "ring")[1], name, verb)
                self.daemon.ctl("class", "remove", "k", name)
                expected = set(self.classes("k"))
            self.assertEqual(len(glob.glob(self.daemon.path("state/sites/k/replay/*"))),
                             self.daemon.one("site", "show", "k")["images"])
        self.daemon.ctl("audit", "verify")


if __name__ == "__main__":
    unittest.main()
