#!/usr/bin/env python3
"""Faults from outside: files that shrink or vanish while mapped, full disks, missing permission, too little memory.

    faults.py --program lathe --model models/storyteller

Each must end in success or in one `lathe: error:` line with exit code 1 (3 for a refused memory plan), never in a signal.
"""

import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = ""
MODEL = pathlib.Path()
SANITIZED = False
NOBODY = 65534


def limited(kind, value):
    return lambda: resource.setrlimit(kind, (value, value))


class Faults(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-faults-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.folder.chmod(0o755)

    def copy_model(self):
        copy = self.folder / "model"
        shutil.copytree(MODEL, copy)
        return copy

    def start(self, *arguments, preexec=None, stdout=subprocess.PIPE, program=None):
        environment = {**os.environ, "HOME": str(self.folder), "HF_HOME": str(self.folder / "hf")}
        return subprocess.Popen(
            [program or PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=preexec,
        )

    def finish(self, process, seconds=120):
        out, err = process.communicate(timeout=seconds)
        self.assertGreaterEqual(process.returncode, 0, f"signal {-process.returncode}: {err}")
        return process.returncode, out, err

    def run_program(self, *arguments, **keywords):
        return self.finish(self.start(*arguments, **keywords))

    def expect_error(self, result, *mentions, codes=(1,)):
        code, _, err = result
        lines = [line for line in err.splitlines() if line.startswith("lathe: error: ")]
        self.assertEqual(len(lines), 1, err)
        self.assertEqual(err.splitlines()[-1], lines[0])
        self.assertIn(code, codes, err)
        for text in mentions:
            self.assertIn(text, lines[0])

    def long_evaluation(self, model):
        """A run that reads weights for seconds."""
        text = self.folder / "text"
        text.write_text("Once upon a time there was a king who had three sons. " * 20000, encoding="utf-8")
        process = self.start("eval", "perplexity", "-m", model, "-f", text, "--ctx", "64", "-t", "1")
        time.sleep(1.5)
        self.assertIsNone(process.poll(), "the evaluation ended too soon to be disturbed")
        return process

    def test_weights_truncated_while_mapped(self):
        model = self.copy_model()
        process = self.long_evaluation(model)
        os.truncate(model / "model.safetensors", 1 << 20)
        self.expect_error(self.finish(process), "model.safetensors", "truncated")

    def test_weights_deleted_while_mapped(self):
        model = self.copy_model()
        process = self.long_evaluation(model)
        (model / "model.safetensors").unlink()
        time.sleep(1.0)
        self.assertIsNone(process.poll(), "a deleted file stays mapped")
        process.terminate()
        code, _, err = self.finish(process)
        self.assertEqual(code, 143, err)

    def test_full_disk_on_stdout(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            for arguments in (["generate", "-m", MODEL, "-p", "The", "-n", "20"], ["inspect", MODEL], ["--help"]):
                self.expect_error(self.run_program(*arguments, stdout=full), "stdout")

    def test_closed_pipe_on_stdout(self):
        process = self.start("generate", "-m", MODEL, "-p", "The", "-n", "400", "--ignore-eos")
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        process.wait(timeout=60)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn("lathe: error: stdout", err)

    def test_full_disk_under_a_result(self):
        out = self.folder / "logits.safetensors"
        ids = ",".join(["7"] * 100)
        result = self.run_program(
            "eval", "logits", "-m", MODEL, "--token-ids", ids, "--out", out, preexec=limited(resource.RLIMIT_FSIZE, 1 << 20)
        )
        self.expect_error(result, "logits.safetensors")
        self.assertEqual(list(self.folder.glob("*logits*")), [], "no partial file stays")

    def test_results_that_cannot_be_written(self):
        (self.folder / "file").write_text("x", encoding="utf-8")
        for out in (self.folder / "none" / "a", self.folder / "file" / "a", self.folder):
            self.expect_error(self.run_program("eval", "logits", "-m", MODEL, "--token-ids", "1", "--out", out))

    def test_unwritable_hub_cache(self):
        (self.folder / "hf").write_text("a file where the cache should be", encoding="utf-8")
        self.expect_error(self.run_program("pull", "acme/tiny"))

    def test_state_that_cannot_be_written_does_not_stop_an_answer(self):
        environment = {**os.environ, "HOME": "/proc/none", "XDG_STATE_HOME": "/proc/none"}
        done = subprocess.run(
            [PROGRAM, "run", str(MODEL), "-p", "The", "-n", "3"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_no_permission(self):
        model = self.copy_model()
        (model / "model.safetensors").chmod(0)
        program = None
        become_nobody = None
        if os.geteuid() == 0:
            program = str(self.folder / "lathe")
            shutil.copy(PROGRAM, program)
            become_nobody = lambda: (os.setgid(NOBODY), os.setuid(NOBODY))
        result = self.run_program("generate", "-m", model, "-p", "x", program=program, preexec=become_nobody)
        self.expect_error(result, "model.safetensors")

    @unittest.skipIf(not pathlib.Path("/proc/self/statm").exists(), "needs /proc")
    def test_too_little_address_space(self):
        if SANITIZED:
            self.skipTest("sanitizers need the address space")
        outcomes = set()
        for megabytes in (30, 45, 60, 80, 100, 120, 140, 160, 200, 300, 1000):
            limit = limited(resource.RLIMIT_AS, megabytes << 20)
            # Where the loader cannot map the libraries, or their own initialisation fails, the program never begins.
            if subprocess.run([PROGRAM, "--version"], preexec_fn=limit, capture_output=True, check=False).returncode != 0:
                continue
            result = self.finish(self.start("generate", "-m", MODEL, "-p", "The king", "-n", "4", "-t", "2", preexec=limit))
            outcomes.add(result[0])
            if result[0] != 0:
                self.expect_error(result, codes=(1, 3))
        self.assertIn(0, outcomes)
        self.assertTrue(outcomes & {1, 3}, outcomes)


def main():
    global PROGRAM, MODEL, SANITIZED
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sanitized", action="store_true")
    options = parser.parse_args()
    PROGRAM, MODEL, SANITIZED = options.program, pathlib.Path(options.model), options.sanitized
    unittest.main(argv=[sys.argv[0]], verbosity=2)


if __name__ == "__main__":
    main()
