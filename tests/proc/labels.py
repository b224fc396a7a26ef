# SPDX-License-Identifier: Apache-2.0
"""Labels: said of images by file, folder and list; what cannot be said names where it stands."""

import os
import shutil
import unittest

import harness


class Labels(harness.Case):
    CONFIG = "[site]\npolicy = manual\n"

    def site(self, name, *settings):
        sets = [word for setting in settings for word in ("--set", setting)]
        self.daemon.ctl("site", "create", name, *sets)

    def folders(self, name, first, n, classes=2):
        """A folder of class folders: an image's kind is its number, see fixture.c."""
        root = self.daemon.path(f"folders-{name}")
        source = self.images(first, n)
        for file in sorted(os.listdir(source)):
            into = os.path.join(root, f"kind {int(file[:5]) % classes}")
            os.makedirs(into, exist_ok=True)
            shutil.copy(os.path.join(source, file), into)
        return root

    def classes(self, site):
        return {row["class"]: row["images"] for row in self.daemon.ctl("label", "list", site)}

    def decisions(self, site):
        return [row["detail"] for row in self.daemon.ctl("audit", "show", "--site", site)
                if row["what"] == "image.label"]

    def test_images_are_labelled_by_file(self):
        self.site("files")
        folder = self.images(0, 4)
        paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        self.daemon.ctl("push", "files", *paths[:3])
        row = self.daemon.one("label", "files", *paths[:3], "ok")
        self.assertEqual((row["labelled"], row["added"], row["pushed"]), (3, 3, 0))
        self.assertEqual(self.daemon.one("site", "show", "files")["duplicates"], 0)
        row = self.daemon.one("label", "files", paths[2], paths[3], "Kratzer ä")
        self.assertEqual((row["labelled"], row["added"], row["changed"], row["pushed"]),
                         (2, 1, 1, 1))
        self.assertEqual(self.classes("files"), {"ok": 2, "Kratzer ä": 2})
        self.assertEqual(self.daemon.one("label", "files", *paths[:2], "ok")["added"], 0)
        row = self.daemon.one("label", "files", "--remove", paths[0])
        self.assertEqual((row["labelled"], row["removed"]), (0, 1))
        self.assertEqual(self.classes("files"), {"ok": 1, "Kratzer ä": 2})
        uid = os.getuid()
        self.assertEqual(self.decisions("files"), [
            f"3 images labelled, 0 relabelled, 0 no longer by uid {uid}: ok",
            f"0 images labelled, 1 relabelled, 0 no longer by uid {uid}: Kratzer ä",
            f"1 images labelled, 0 relabelled, 0 no longer by uid {uid}: Kratzer ä",
            f"0 images labelled, 0 relabelled, 1 no longer by uid {uid}"])
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.classes("files"), {"ok": 1, "Kratzer ä": 2})
        self.daemon.ctl("audit", "verify")

    def test_folders_are_classes(self):
        self.site("folders")
        row = self.daemon.one("label", "folders", "--folders", self.folders("f", 100, 20))
        self.assertEqual((row["labelled"], row["pushed"], row["rejected"]), (20, 20, 0))
        self.assertEqual(self.classes("folders"), {"kind 0": 10, "kind 1": 10})

    def test_a_list_names_files_beside_it(self):
        self.site("listed")
        folder = self.images(200, 3)
        path = os.path.join(folder, "list.csv")
        with open(path, "w", encoding="utf-8") as file:
            file.write('\ufefffile,class\r\n00200.png,ok\r\n\n"00201.png","a ""deep"", scratch"\n'
                       f"{folder}/00202.png,ok")
        row = self.daemon.one("label", "listed", "--csv", path)
        os.unlink(path)
        self.assertEqual(row["labelled"], 3)
        self.assertEqual(self.classes("listed"), {"ok": 2, 'a "deep", scratch': 1})

    def test_a_bad_line_is_named_and_nothing_is_labelled(self):
        self.site("strict")
        folder = self.images(300, 2)
        path = self.daemon.path("bad.csv")
        good = f"{folder}/00300.png,ok\n"
        for line, what in ((b"00300.png", "not PATH,CLASS"),
                           (b"a,b,c", "more than PATH,CLASS"),
                           (b'"a,b', "a quote too few or too many"),
                           (b'a"b,c', "a quote too few or too many"),
                           (b'"a"b,c', "a quote too few or too many"),
                           (b",ok", "no path"),
                           (b"a,", "not a class's name"),
                           (b"a,\xff\xfe", "not a class's name"),
                           (b"a,\xc0\x80", "not a class's name"),
                           (b"a,tab\there", "not a class's name"),
                           (b"a," + b"x" * 64, "not a class's name"),
                           (b"a\0b,ok", "no text"),
                           (b"x" * 10000, "longer than"),
                           (b"absent.png,ok", "No such file"),
                           (folder.encode() + b",ok", "Is a directory")):
            with open(path, "wb") as file:
                file.write(good.encode() + line + b"\n" + good.encode())
            done = self.daemon.command_bytes("label", "strict", "--csv", path)
            self.assertEqual(done.returncode, 1, line)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn(b"bad.csv:2: ", done.stderr)
            self.assertIn(what.encode(), done.stderr)
        self.assertEqual(self.classes("strict"), {})

    def test_what_makes_no_sense_is_refused(self):
        self.site("odd")
        folder = self.images(400, 3)
        image = os.path.join(folder, "00400.png")
        self.assertIn("no site 'none'", self.daemon.error("label", "none", image, "ok"))
        self.assertIn("no site 'none'", self.daemon.error("label", "list", "none"))
        self.assertIn("No such file", self.daemon.error("label", "odd", image + "x", "ok"))
        self.assertIn("not a class's name", self.daemon.error("label", "odd", image, "x" * 64))
        self.assertIn("not a class's name", self.daemon.error("label", "odd", image, " ok"))
        for args in ((), ("odd",), ("odd", image), ("odd", image, image), ("odd", "--remove"),
                     ("odd", "--folders", folder, "--csv", "x"), ("odd", "--csv", "x", image),
                     ("Odd", image, "ok")):
            done = self.daemon.command("label", *args)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1), args)
        # The same content under two names cannot be of two classes.
        root = self.daemon.path("twice")
        for name in ("a", "b"):
            os.makedirs(os.path.join(root, name))
            shutil.copy(image, os.path.join(root, name, f"{name}.png"))
        self.assertIn("the same image, of class a and of class b",
                      self.daemon.error("label", "odd", "--folders", root))
        self.assertIn("not a folder of folders",
                      self.daemon.error("label", "odd", "--folders", folder))
        self.assertEqual(self.classes("odd"), {})

    def test_a_broken_image_does_not_hold_up_the_others(self):
        self.site("mixed")
        folder = self.folders("mixed", 500, 4)
        broken = os.path.join(folder, "kind 0", "broken.png")
        with open(broken, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n but no more")
        done = self.daemon.command("label", "mixed", "--folders", folder, "--json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("broken.png: ", done.stderr)
        self.assertIn("1 of 5 images could not be taken", done.stderr)
        self.assertIn('"labelled":4', done.stdout)
        self.assertEqual(self.classes("mixed"), {"kind 0": 2, "kind 1": 2})

    def test_a_frozen_site_takes_no_label(self):
        self.site("cold")
        image = os.path.join(self.images(600, 1), "00600.png")
        self.daemon.ctl("push", "cold", image)
        self.daemon.ctl("site", "freeze", "cold")
        self.assertIn("frozen", self.daemon.error("label", "cold", image, "ok"))
        self.assertEqual(self.classes("cold"), {})

    def test_messages_that_make_no_sense_are_answered(self):
        self.site("wild")
        field, varint = harness.field, harness.varint

        def part(number, data):
            return varint(number << 3 | 2) + varint(len(data)) + data

        def ask(message):
            sock = self.daemon.control()
            sock.send(field(1, 1) + part(2, field(1, 1) + field(2, 0)))
            sock.recv(65536)
            sock.send(field(1, 2) + part(60, message))
            answer = harness.fields(sock.recv(65536))
            sock.close()
            return answer[1], harness.fields(answer[3])[2].decode()

        site, hash_ = part(1, b"wild"), b"h" * 32
        one = part(3, part(1, hash_) + field(2, 0))
        for message, text in (
                (site, "0 images"),
                (site + part(3, part(1, b"short")), "without a hash"),
                (site + part(2, b"ok") + part(3, part(1, hash_) + field(2, 1)), "no class"),
                (site + part(2, b"\xff") + one, "not a class's name"),
                (site + part(2, b"") + one, "not a class's name"),
                (site + part(2, b"a\nb") + one, "not a class's name"),
                (site + part(2, b"x" * 64) + one, "not a class's name"),
                (site + part(2, b"ok") + one * 1001, "1001 images"),
                (part(1, b"absent") + one, "no site")):
            number, error = ask(message)
            self.assertEqual(number, 2)
            self.assertIn(text, error)
        self.lives()


class Supervised(harness.Case):
    """Rounds that learn from labels. The learner takes what CPU time nobody else wants, which beside
    other tests is little: small batches."""

    CONFIG = "[site]\npolicy = manual\nlearn_steps = 60\nrecipe = batch=8\n"

    folders = Labels.folders

    def version(self, site, number):
        return self.daemon.one("mask", "show", site, number)

    def test_a_round_learns_from_labels_to_a_verdict_and_once_more(self):
        self.daemon.ctl("site", "create", "known")
        self.daemon.ctl("label", "known", "--folders", self.folders("known", 0, 320, 4))
        row = self.daemon.one("learn", "known", "--objective", "supervised", "--wait")
        self.assertIn(row["state"], ("candidate", "held"))
        shown = self.version("known", 1)
        self.assertIn("objective=supervised", shown["recipe"])
        for word in ("n_small=0", "min_area=1 ", "score_spread=0.5", "solarize=0.2"):
            self.assertIn(word, shown["recipe"])
        frozen, candidate = shown["gate"]["frozen"], shown["gate"]["candidate"]
        # 64 are held out, some 16 of a class. Near-duplicates of learnt ones are not judged on, unless
        # less than half would be left: two classes at least keep the 6 that a class must have.
        self.assertIn(candidate["labelled"], range(12, 65))
        self.assertIn(candidate["classes"], range(2, 5))
        self.assertEqual(frozen["labelled"], candidate["labelled"])
        for shots in ("shot1", "shot5"):
            self.assertGreater(frozen[shots], .2)
            self.assertLessEqual(candidate[shots], 1)
            self.assertLessEqual(candidate[shots + "_diff_lo"], candidate[shots + "_diff_hi"])
            self.assertNotIn(shots + "_diff_lo", frozen)
        again = self.daemon.one("mask", "reproduce", "known", "1")
        self.assertTrue(again["equal"], again)
        # What labels say later does not change what was learnt, but what would be.
        self.daemon.ctl("label", "known", "--remove", self.daemon.path("folders-known/kind 0"))
        self.assertTrue(self.daemon.one("mask", "reproduce", "known", "1")["equal"])
        self.daemon.ctl("learn", "known", "--objective", "supervised", "--wait")
        other = self.version("known", 2)
        self.assertNotEqual(other["manifest_digest"], shown["manifest_digest"])
        manifest = self.daemon.path("state/sites/known/masks/1.manifest")
        with open(manifest, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertEqual(len(lines), 320)
        self.assertEqual(sum(line.endswith("\tkind 3") for line in lines), 80)
        held = [line for line in lines if line[0] == "H"]
        self.assertEqual({line.split("\t")[1] for line in held}, {f"kind {i}" for i in range(4)})

    def test_labels_change_nothing_of_a_round_that_does_not_learn_from_them(self):
        self.daemon.ctl("site", "create", "told")
        self.daemon.ctl("push", "told", self.images(0, 60))
        self.daemon.ctl("learn", "told", "--wait")
        self.daemon.ctl("label", "told", self.images(0, 30), "a")
        self.daemon.ctl("learn", "told", "--wait")
        masks = []
        for version in ("1", "2"):
            path = self.daemon.path(f"told{version}.kmask")
            self.daemon.ctl("mask", "export", "told", version, path)
            with open(path, "rb") as file:
                masks.append(file.read())
        self.assertEqual(masks[0], masks[1])
        self.assertTrue(self.daemon.one("mask", "reproduce", "told", "1")["equal"])

    def test_too_few_labels_are_one_error(self):
        self.daemon.ctl("site", "create", "poor", "--set", "recipe=objective=supervised batch=8")
        self.daemon.ctl("push", "poor", self.images(0, 60))
        self.assertIn("there are: none", self.daemon.error("learn", "poor"))
        self.daemon.ctl("label", "poor", self.images(0, 20), "ok")
        error = self.daemon.error("learn", "poor")
        self.assertIn("needs 2 classes of 5 labelled images", error)
        self.assertRegex(error, r"there are: ok \d+$")
        self.assertEqual(self.daemon.ctl("mask", "list", "poor"), [])
        self.assertIn("no", self.daemon.error("learn", "poor", "--objective", "none"))
        # What is asked for counts before the site's recipe, either way.
        self.daemon.ctl("learn", "poor", "--objective", "swav", "--wait")
        recipe = self.version("poor", 1)["recipe"]
        self.assertIn("objective=swav", recipe)
        self.assertIn("n_small=2", recipe)

    def test_the_sites_recipe_is_enough(self):
        self.daemon.ctl("site", "create", "wanted", "--set",
                        "recipe=objective=supervised batch=8")
        self.daemon.ctl("label", "wanted", "--folders", self.folders("wanted", 0, 100, 3))
        self.daemon.ctl("learn", "wanted", "--steps", "5")
        # What was asked for outlives the daemon that was asked.
        self.daemon.kill()
        self.daemon.start()
        harness.wait_until(
            lambda: self.version("wanted", 1)["state"] != "learning", "the end of the round")
        recipe = self.version("wanted", 1)["recipe"]
        for word in ("objective=supervised", "batch=8", "n_small=0", "queue=0"):
            self.assertIn(word, recipe)


if __name__ == "__main__":
    unittest.main()
