#!/usr/bin/env python3
"""Checks of the generator and of the judge, without the program."""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import make_hostile  # noqa: E402
import run_hostile  # noqa: E402


def digest(folder):
    sha = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        info = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
        size = info.st_size if stat.S_ISREG(info.st_mode) else 0
        sha.update(f"{name} {stat.S_IFMT(info.st_mode)} {size} {target}\n".encode())
        if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 26:
            with open(path, "rb") as file:
                sha.update(file.read())
    return sha.hexdigest()


class Generator(unittest.TestCase):
    def test_writes_many_different_folders_the_same_each_time(self):
        first, bases = make_hostile.all_cases()
        again, bases_again = make_hostile.all_cases()
        self.assertGreaterEqual(len(first), 180)
        self.assertEqual([case.name for case in first], [case.name for case in again])
        seen = {}
        with tempfile.TemporaryDirectory() as root:
            for number, case in enumerate(first):
                a, b = os.path.join(root, f"a{number}"), os.path.join(root, f"b{number}")
                make_hostile.write_case(case, bases, a)
                if number % 10 == 0:
                    make_hostile.write_case(again[number], bases_again, b)
                    self.assertEqual(digest(a), digest(b), case.name)
                if case.expect == "error":  # an error case that equals another one would test nothing new
                    key = (digest(a), case.command)
                    self.assertTrue(key not in seen, f"{case.name} and {seen.get(key)} are the same")
                    seen[key] = case.name
                shutil.rmtree(a)

    def test_cases_do_not_change_the_model_they_start_from(self):
        listed, bases = make_hostile.all_cases()
        with tempfile.TemporaryDirectory() as root:
            make_hostile.write_case(listed[0], bases, os.path.join(root, "before"))
            for number, case in enumerate(listed[::5]):
                make_hostile.write_case(case, bases, os.path.join(root, str(number)))
            make_hostile.write_case(listed[0], bases, os.path.join(root, "after"))
            self.assertEqual(digest(os.path.join(root, "before")), digest(os.path.join(root, "after")))


class Judge(unittest.TestCase):
    def verdict(self, expect, code, stderr, mentions=("hidden_size",), exits=(1,), timed_out=False, resident=1 << 20):
        row = {"expect": expect, "mentions": list(mentions), "exits": list(exits), "bytes": 1 << 20, "arguments": []}
        outcome = run_hostile.Outcome(code, stderr, 0.1, resident, timed_out)
        return "; ".join(run_hostile.judge(row, outcome, False))

    def test_accepts_one_clean_error(self):
        line = b"lathe: error: config.json: hidden_size: expected at least 1, found 0\n"
        self.assertEqual(self.verdict("error", 1, line), "")
        self.assertEqual(self.verdict("error", 1, b"lathe: warning: x\n" + line), "")
        self.assertEqual(self.verdict("either", 1, line, mentions=("other",)), "")
        self.assertEqual(self.verdict("error", 3, line, exits=(1, 3)), "")

    def test_accepts_success_where_it_may_be(self):
        self.assertEqual(self.verdict("loads", 0, b"lathe: warning: x\n"), "")
        self.assertEqual(self.verdict("either", 0, b""), "")

    def test_refuses_everything_else(self):
        line = b"lathe: error: config.json: hidden_size: expected at least 1, found 0\n"
        for wanted, arguments in {
            "accepted": ("error", 0, b""),
            "expected to load": ("loads", 1, line),
            "exit code 2": ("error", 2, line),
            "signal 11": ("error", -11, line),
            "2 error lines": ("error", 1, line + line),
            "0 error lines": ("error", 1, b"terminated\n"),
            "not the last": ("error", 1, line + b"bye\n"),
            "control characters": ("error", 1, b"lathe: error: hidden_size \x1b[2J\n"),
            "not UTF-8": ("error", 1, b"lathe: error: hidden_size \xff\n"),
            "names none": ("error", 1, b"lathe: error: something\n"),
            "longer than": ("error", 1, b"lathe: error: hidden_size " + b"x" * 1000),
            "sanitizer": ("error", 1, b"==1==ERROR: AddressSanitizer: x\n" + line),
            "although": ("loads", 0, line),
        }.items():
            self.assertIn(wanted, self.verdict(*arguments))
        self.assertIn("still running", self.verdict("error", -9, line, timed_out=True))
        self.assertIn("resident", self.verdict("error", 1, line, resident=1 << 30))


if __name__ == "__main__":
    unittest.main()
