#!/usr/bin/env python3
"""`lathe pull`, `list` and `rm` against a scripted hub and a made cache.

    hub_commands.py --program lathe --hub tests/hub/stand_in_hub.py
"""

import argparse
import fcntl
import json
import os
import pathlib
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

PROGRAM = ""
HUB = ""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
SIZE = 3_000_000


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-hub-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.cache = self.folder / "cache"
        self.endpoint = "http://127.0.0.1:9"  # nobody

    def start_hub(self, steps=()):
        scenario = {
            "repo": "acme/tiny",
            "revisions": {
                "main": {
                    "commit": COMMIT,
                    "files": {
                        "config.json": {"text": '{"model_type": "deepseek_v2"}'},
                        "model.safetensors": {"size": SIZE, "lfs": True, "steps": list(steps)},
                    },
                }
            },
        }
        (self.folder / "scenario.json").write_text(json.dumps(scenario))
        hub = subprocess.Popen(
            [sys.executable, HUB, "--scenario", str(self.folder / "scenario.json"), "--dir", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

        def stop():
            hub.kill()
            hub.wait()
            hub.stdin.close()
            hub.stdout.close()

        self.addCleanup(stop)
        self.endpoint = "http://127.0.0.1:%d" % json.loads(hub.stdout.readline())["hub"]

    def environment(self):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LATHE_"))}
        env.update(HF_HUB_CACHE=str(self.cache), HF_ENDPOINT=self.endpoint, HOME=str(self.folder), TERM="xterm")
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            env.pop(name, None)
        return env

    def lathe(self, *arguments):
        return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=self.environment(),
                              stdin=subprocess.DEVNULL, timeout=120, check=False)

    def make_snapshot(self, name, commit, config=b"{}", ref=None):
        repo = self.cache / ("models--" + name.replace("/", "--"))
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_bytes(config)
        if ref:
            (repo / "refs").mkdir(exist_ok=True)
            (repo / "refs" / ref).write_text(commit)
        return snapshot


class Pull(Case):
    def test_the_snapshot_goes_to_stdout_and_progress_to_stderr(self):
        self.start_hub()
        done = self.lathe("pull", "acme/tiny")
        self.assertEqual(done.returncode, 0, done.stderr)
        snapshot = self.cache / "models--acme--tiny" / "snapshots" / COMMIT
        self.assertEqual(done.stdout, str(snapshot) + "\n")
        self.assertEqual((snapshot / "model.safetensors").stat().st_size, SIZE)
        self.assertIn("model.safetensors 2.86 MiB\n", done.stderr)
        self.assertRegex(done.stderr, r"loaded [0-9.]+ MiB in [0-9.]+ s")
        self.assertNotIn("\x1b", done.stderr)

    def test_json_and_quiet(self):
        self.start_hub()
        done = self.lathe("pull", "acme/tiny", "--json", "-q")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        document = json.loads(done.stdout)
        snapshot = self.cache / "models--acme--tiny" / "snapshots" / COMMIT
        self.assertEqual(document["model"], "acme/tiny")
        self.assertEqual(document["snapshot"], str(snapshot))
        self.assertEqual([entry["name"] for entry in document["files"]], ["config.json", "model.safetensors"])
        self.assertEqual(document["bytes"], sum(entry["bytes"] for entry in document["files"]))

    def test_what_is_there_is_not_loaded_again(self):
        self.start_hub()
        self.assertEqual(self.lathe("pull", "acme/tiny").returncode, 0)
        again = self.lathe("pull", "acme/tiny")
        self.assertEqual(again.returncode, 0)
        self.assertNotIn("loaded", again.stderr)

    def test_interrupt_ends_with_130_and_the_next_pull_resumes(self):
        self.start_hub([{"slow": 0.05}])
        process = subprocess.Popen([PROGRAM, "pull", "acme/tiny"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=self.environment())
        blobs = self.cache / "models--acme--tiny" / "blobs"
        limit = time.monotonic() + 30
        while time.monotonic() < limit and not any(
            path.name.endswith("partial") and path.stat().st_size > 0 for path in blobs.glob("*")
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertEqual(out, "")
        self.assertIn("the next `lathe pull acme/tiny` resumes", err)
        done = self.lathe("pull", "acme/tiny")
        self.assertEqual(done.returncode, 0, done.stderr)
        requests = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        self.assertTrue(any(request["range"] for request in requests), requests)
        snapshot = self.cache / "models--acme--tiny" / "snapshots" / COMMIT
        truth = self.folder / "truth" / "main" / "model.safetensors"
        self.assertEqual((snapshot / "model.safetensors").read_bytes(), truth.read_bytes())

    def test_a_terminal_shows_it_in_place(self):
        self.start_hub([{"slow": 0.01}])
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        process = subprocess.Popen([PROGRAM, "pull", "acme/tiny"], stdout=subprocess.DEVNULL, stderr=slave,
                                   env=self.environment())
        os.close(slave)
        seen = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
        os.close(master)
        self.assertEqual(process.wait(), 0, seen)
        text = seen.decode()
        self.assertRegex(text, r"\x1b\[\d+A\r\x1b\[J")
        self.assertRegex(text, r"total  [0-9.]+ \w+ of 2\.86 MiB, \d+ %")
        self.assertTrue(text.endswith("/s\r\n"), text[-80:])
        for line in text.replace("\x1b[J", "\n").splitlines():
            self.assertLess(len(line), 60, line)

    def test_errors(self):
        bad = self.lathe("pull", "not a name")
        self.assertEqual(bad.returncode, 2)
        self.assertEqual(bad.stderr.count("\n"), 1)
        self.start_hub()
        absent = self.lathe("pull", "acme/other")
        self.assertEqual(absent.returncode, 1)
        self.assertTrue(absent.stderr.startswith("lathe: error: acme/other"), absent.stderr)
        self.assertEqual(absent.stdout, "")


class Cache(Case):
    def test_empty_cache(self):
        plain = self.lathe("list")
        self.assertEqual((plain.returncode, plain.stdout), (0, ""))
        self.assertIn("no models in", plain.stderr)
        self.assertEqual(json.loads(self.lathe("list", "--json").stdout), [])

    def test_list(self):
        self.make_snapshot("acme/one", COMMIT, b'{"a": 1}', ref="main")
        incomplete = self.make_snapshot("acme/two", OTHER)
        (incomplete / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
        documents = json.loads(self.lathe("list", "--json").stdout)
        self.assertEqual([d["name"] for d in documents], ["acme/one", "acme/two"])
        self.assertEqual([d["complete"] for d in documents], [True, False])
        self.assertEqual(documents[0]["revision"], "main")
        self.assertEqual(documents[0]["commit"], COMMIT)
        self.assertEqual(documents[0]["bytes"], 8)
        self.assertTrue(documents[0]["snapshot"].endswith("/snapshots/" + COMMIT))
        lines = self.lathe("list").stdout.splitlines()
        self.assertEqual(lines[0].split(), ["NAME", "REVISION", "SIZE", "STATE"])
        self.assertEqual(lines[1].split(), ["acme/one", "main", "8", "B", "complete"])
        self.assertEqual(lines[2].split()[:2], ["acme/two", OTHER[:12]])
        self.assertTrue(lines[2].endswith("incomplete"))

    def test_names_in_the_cache_cannot_command_the_terminal(self):
        self.make_snapshot("acme/\x1b[2Jevil", COMMIT)
        self.assertIn("\\x1b[2Jevil", self.lathe("list").stdout)

    def test_rm(self):
        self.make_snapshot("acme/one", COMMIT, b"12345678", ref="main")
        self.make_snapshot("acme/one", OTHER, b"1234", ref="old")
        one = self.lathe("rm", "acme/one@old", "--json")
        self.assertEqual(one.returncode, 0, one.stderr)
        document = json.loads(one.stdout)
        self.assertEqual(document["name"], "acme/one@old")
        self.assertEqual(document["freed_bytes"], 4)
        self.assertEqual(len(json.loads(self.lathe("list", "--json").stdout)), 1)
        rest = self.lathe("rm", "acme/one")
        self.assertEqual(rest.returncode, 0, rest.stderr)
        self.assertRegex(rest.stdout, r"^removed acme/one, \d+ B freed\n$")
        self.assertEqual(json.loads(self.lathe("list", "--json").stdout), [])

    def test_rm_of_what_is_not_there(self):
        done = self.lathe("rm", "acme/none")
        self.assertEqual(done.returncode, 1)
        self.assertIn("acme/none: not in the hub cache", done.stderr)


def main():
    global PROGRAM, HUB
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--hub", required=True)
    arguments, rest = parser.parse_known_args()
    PROGRAM, HUB = os.path.abspath(arguments.program), os.path.abspath(arguments.hub)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
