#!/usr/bin/env python3
"""Encoding speed beside HuggingFace tokenizers, with equal ids.

Needs the package `tokenizers` (pip install tokenizers==0.21.0) and the program tokenizer_bench (bench/, built with
-DLATHE_BUILD_BENCH=ON). Both run on one thread, take turns, and are timed inside their own process, without start-up,
loading or output; the medians of the rounds count. Exits with 1 when ids differ, with 3 when the ratio is below
--at-least.

    tools/bench_tokenizer.py --bench build/bench/tokenizer_bench --text stories.txt MODEL_FOLDER...
"""

import argparse
import array
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

try:
    import tokenizers
except ImportError:
    sys.exit("bench_tokenizer.py: expected the package tokenizers (pip install tokenizers==0.21.0), found none")


class Lathe:
    def __init__(self, program, folder, text_path):
        self.process = subprocess.Popen(
            [program, folder, text_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        line = self.process.stdout.readline().split()
        if len(line) != 2:
            sys.exit(f"bench_tokenizer.py: {command}: expected seconds and tokens, found {' '.join(line) or 'nothing'}")
        return float(line[0]), int(line[1])

    def ids(self):
        with tempfile.NamedTemporaryFile() as file:
            self.ask("ids " + file.name)
            out = array.array("i")
            out.frombytes(file.read())
            return out.tolist()

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def first_difference(ours, theirs):
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            return f"token {i}: expected {b}, found {a}"
    return f"expected {len(theirs)} tokens, found {len(ours)}"


def compare(options, folder):
    """The smaller of the two ratios of one model."""
    with open(options.text, encoding="utf-8", newline="") as file:
        text = file.read()
    lines = [line + "\n" for line in text.split("\n")]  # where tokenizer_bench cuts
    if lines.pop() != "\n":
        lines.append(text[text.rfind("\n") + 1 :])
    megabytes = len(text.encode()) / 1e6
    theirs = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    ours = Lathe(options.bench, folder, options.text)
    expected = theirs.encode(text, add_special_tokens=False).ids
    found = ours.ids()
    if found != expected:
        sys.exit(f"bench_tokenizer.py: {folder}: {first_difference(found, expected)}")
    works = {
        "encode": lambda: theirs.encode(text, add_special_tokens=False).ids,
        "lines": lambda: [theirs.encode(line, add_special_tokens=False).ids for line in lines],
    }
    ratios = []
    for command, work in works.items():
        own, other = [], []
        for _ in range(options.rounds):
            own.append(ours.ask(command)[0])
            other.append(timed(work))
        a, b = statistics.median(own), statistics.median(other)
        ratios.append(b / a)
        print(
            f"{os.path.basename(os.path.normpath(folder)):20} {command:7} lathe {megabytes / a:7.2f} MB/s"
            f"   tokenizers {tokenizers.__version__} {megabytes / b:7.2f} MB/s   ratio {b / a:5.2f}"
            f"   ({len(found)} tokens, ids equal)"
        )
    if ours.close() != 0:
        sys.exit(f"bench_tokenizer.py: {folder}: tokenizer_bench failed")
    return min(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="MODEL_FOLDER", help="with tokenizer.json")
    parser.add_argument("--bench", required=True, help="the program tokenizer_bench")
    parser.add_argument("--text", required=True, help="UTF-8 text to encode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=0.0, metavar="RATIO")
    options = parser.parse_args()
    if min(compare(options, folder) for folder in options.folders) < options.at_least:
        sys.exit(3)


if __name__ == "__main__":
    main()
