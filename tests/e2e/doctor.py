#!/usr/bin/env python3
"""`lathe doctor`: its lines, its JSON document, and what changes them.

    doctor.py --program lathe
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = ""


class Doctor(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-doctor-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def lathe(self, *arguments, **changes):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LATHE_"))}
        env.update(HF_HUB_CACHE=str(self.folder / "cache"), **changes)
        return subprocess.run([PROGRAM, "doctor", *arguments], capture_output=True, text=True, env=env,
                              stdin=subprocess.DEVNULL, timeout=300, check=False)

    def test_lines(self):
        start = time.monotonic()
        done = self.lathe()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertLess(time.monotonic() - start, 60)  # 3 s on an idle machine
        self.assertEqual(done.stderr, "")
        lines = done.stdout.splitlines()
        for line in lines:
            self.assertRegex(line, r"^(ok  |warn|fail)  [a-z0-9 ]+: \S")
        named = [line[6:].split(":")[0] for line in lines]
        self.assertEqual(len(named), len(set(named)))
        for name in ("processor", "kernels", "threads", "numa", "memory", "swap", "address space", "huge pages",
                     "hub cache", "default model", "build", "bandwidth", "arithmetic",
                     "fp32 peak", "int8 peak"):
            self.assertIn(name, named)

    def test_document(self):
        done = self.lathe("--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        document = json.loads(done.stdout)
        self.assertIs(document["ok"], True)
        for finding in document["findings"]:
            self.assertEqual(set(finding), {"severity", "what", "value", "advice"})
            self.assertIn(finding["severity"], ("ok", "warn", "fail"))
        machine = document["machine"]
        self.assertIn(machine["isa"], machine["usable_isas"])
        self.assertGreaterEqual(machine["threads"], 1)
        self.assertGreaterEqual(machine["affinity_cpus"], machine["threads"])
        self.assertGreater(machine["total_memory"], machine["available_memory"])
        self.assertEqual(machine["hub_cache"], str(self.folder / "cache"))
        self.assertGreater(machine["hub_free_bytes"], 0)
        for kind, unit in (("bandwidth", "bytes"), ("arithmetic", "flop"), ("fp32_peak", "op"), ("int8_peak", "op")):
            for threads in ("one_thread", "all_threads"):
                self.assertGreater(document["measured"][kind]["%s_%s_per_s" % (threads, unit)], 1e7)
        self.assertEqual(set(document["build"]), {"version", "compiler", "optimised", "checks"})

    def test_a_slower_kernel_table_is_a_warning(self):
        document = json.loads(self.lathe("--json", LATHE_ISA="reference").stdout)
        self.assertEqual(document["machine"]["isa"], "reference")
        kernels = [finding for finding in document["findings"] if finding["what"] == "kernels"]
        self.assertEqual(kernels[0]["severity"], "warn")

    def test_settings_of_the_hub_that_do_not_parse(self):
        done = self.lathe(HF_ENDPOINT="not a url")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"warn  hub cache: not known; .*HF_ENDPOINT")


def main():
    global PROGRAM
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    arguments, rest = parser.parse_known_args()
    PROGRAM = os.path.abspath(arguments.program)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
