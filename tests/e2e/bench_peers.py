#!/usr/bin/env python3
"""tools/bench_peers.py with stand-ins for the other engines: what it asks them for, and the table it makes.

    bench_peers.py --program lathe --tool tools/bench_peers.py --golden tests/golden
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
TOOL = pathlib.Path()
GOLDEN = pathlib.Path()

# A stand-in notes its arguments and answers what its folder holds.
STAND_IN = """#!/bin/sh
echo "$@" >> "$0.calls"
cat "$0.answer"
"""


class BenchPeers(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-peers-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def stand_in(self, name, answer):
        path = self.folder / name
        path.write_text(STAND_IN)
        path.chmod(0o755)
        (self.folder / (name + ".answer")).write_text(answer)
        return str(path)

    def calls(self, name):
        return (self.folder / (name + ".calls")).read_text().splitlines()

    def tool(self, *arguments):
        return subprocess.run([sys.executable, str(TOOL), str(GOLDEN / "v2lite-tiny"), "--lathe", PROGRAM, "-t", "1",
                               "--prompt", "4", "--gen", "2", "--depth", "0,8", "--rounds", "2", *arguments],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False)

    def test_table(self):
        llama = self.stand_in("llama", json.dumps([
            {"n_prompt": p, "n_gen": n, "n_depth": d, "avg_ts": s, "build_commit": "abc"}
            for p, n, d, s in ((4, 0, 0, 2.0), (0, 2, 0, 4.0), (4, 0, 8, 1.0), (0, 2, 8, 3.0))]))
        ik = self.stand_in("ik", json.dumps([{"n_prompt": p, "n_gen": n, "avg_ts": s, "build_commit": "def"}
                                             for p, n, s in ((4, 0, 5.0), (0, 2, 6.0), (8, 2, 7.0))]))
        sweep = self.stand_in("sweep", 'noise\n{"n_kv": 0, "speed_pp": 99.0}\n{"n_kv": 8, "speed_pp": 0.5}\n')
        samples = self.folder / "samples.json"
        done = self.tool("--llama", llama, "--ik", ik, "--ik-sweep", sweep, "--samples", str(samples))
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
                if line.startswith("| ")][1:]
        self.assertEqual([row[:2] for row in rows], [["prompt 4", "0"], ["prompt 4", "8"], ["gen 2", "0"], ["gen 2", "8"]])
        self.assertEqual([row[3] for row in rows], ["%g (%g to %g)" % (s, s, s) for s in (5, 0.5, 6, 7)])
        self.assertEqual([row[5] for row in rows], ["%g (%g to %g)" % (s, s, s) for s in (2, 1, 4, 3)])
        found = json.loads(samples.read_text())
        self.assertEqual({len(case["tok_per_s"]) for cases in found.values() for case in cases}, {2})
        for row, ours in zip(rows, sorted(found["lathe"], key=lambda case: (case["kind"] == "gen", case["depth"]))):
            middle = sum(ours["tok_per_s"]) / 2
            self.assertAlmostEqual(float(row[4]), middle / float(row[3].split()[0]), delta=0.0051)
        self.assertIn("build abc", done.stdout)
        self.assertEqual(len(self.calls("llama")), 2)
        self.assertIn("-p 4 -n 2 -d 0,8 -fa 1", self.calls("llama")[0])
        self.assertIn("-p 4 -n 2 -gp 8,2", self.calls("ik")[0])
        self.assertIn("-c 12 -b 4 -ub 4 -n 1 --sweep-stride 2", self.calls("sweep")[0])

    def test_what_fails(self):
        broken = self.folder / "broken"
        broken.write_text("#!/bin/sh\necho no such model >&2\nexit 4\n")
        broken.chmod(0o755)
        done = self.tool("--llama", str(broken))
        self.assertEqual(done.returncode, 1)
        self.assertIn("exit code 4: no such model", done.stderr)
        fast = self.stand_in("fast", json.dumps([{"n_prompt": 4, "n_gen": 0, "n_depth": 0, "avg_ts": 1e12}]))
        done = self.tool("--llama", fast, "--at-least", "1")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertNotEqual(self.tool("--depth", "x").returncode, 0)


def main():
    global PROGRAM, TOOL, GOLDEN
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--tool", type=pathlib.Path, required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    PROGRAM, TOOL, GOLDEN = os.path.abspath(arguments.program), arguments.tool, arguments.golden
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
