#!/usr/bin/env python3
"""Compares the quantised files of `lathe quantize` with those of llama.cpp, made from the same model.

Both quantisers make a file of every type. llama-perplexity scores all of them (perplexity, and the mean divergence of
the outputs from those of the unquantised file), and so does `lathe eval perplexity`; a table goes to stdout. Run by
hand: the programs of llama.cpp are arguments.

    tools/compare_gguf_with_llama_cpp.py --llama BUILD/bin --model models/storyteller --text TEXT.txt
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TYPES = ["q8_0", "q6_k", "q5_k_m", "q5_1", "q5_0", "q4_k_m", "q4_1", "q4_0"]
ATTEMPTS = 5  # llama-perplexity sometimes ends before it has printed everything
PERPLEXITY = re.compile(r"Final estimate: PPL = ([0-9.]+)")
MEAN_PERPLEXITY = re.compile(r"Mean PPL\(Q\)\s*:\s*([0-9.]+)")
DIVERGENCE = re.compile(r"Mean\s+KLD:\s*(-?[0-9.]+)")


def run(command, env=None):
    """Output of a program, both streams together; ends this one with the last lines of it on failure."""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, **both, text=True, errors="replace", env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n" + "\n".join(done.stdout.splitlines()[-5:]))
    return done.stdout


def found(pattern, text, what):
    """The number that a pattern finds."""
    match = pattern.search(text)
    if match is None:
        sys.exit(f"{what}: no {pattern.pattern} in the output")
    return float(match.group(1))


def print_row(name, quantiser, path, by_llama, divergence, by_lathe):
    """One line of the table."""
    size = path.stat().st_size
    print(f"| {name} | {quantiser} | {size:,} | {by_llama:.4f} | {divergence} | {by_lathe:.4f} |", flush=True)


class Comparison:
    """The programs and the files that they make."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.env = {**os.environ, "LD_LIBRARY_PATH": str(args.llama)}
        self.base = folder / "base.gguf"
        self.logits = folder / "base.logits"

    def llama(self, program, *arguments):
        """Output of a program of llama.cpp."""
        return run([self.args.llama / program, *arguments], self.env)

    def llama_perplexity(self, path, patterns, *more):
        """Output of llama-perplexity over the text, with all of the patterns in it if one of a few attempts has them."""
        window, threads = str(self.args.ctx), str(self.args.threads)
        arguments = ["-m", path, "-f", self.args.text, "-c", window, "-t", threads, *more]
        for _ in range(ATTEMPTS):
            text = self.llama("llama-perplexity", *arguments)
            if all(pattern.search(text) for pattern in patterns):
                break
        return text

    def lathe_perplexity(self, path):
        """Perplexity by lathe."""
        window, threads = str(self.args.ctx), str(self.args.threads)
        command = [self.args.lathe, "eval", "perplexity", "-m", path, "-f", self.args.text, "--ctx", window]
        done = subprocess.run(
            [*command, "-t", threads, "--json", "-q"], stdout=subprocess.PIPE, text=True, check=True
        )
        return json.loads(done.stdout)["perplexity"]

    def prepare(self):
        """The unquantised file and its outputs; gives both perplexities of it."""
        run([self.args.lathe, "quantize", self.args.model, self.base, "--type", self.args.base, "-q"])
        text = self.llama_perplexity(self.base, [PERPLEXITY], "--kl-divergence-base", self.logits)
        return found(PERPLEXITY, text, "llama-perplexity"), self.lathe_perplexity(self.base)

    def score(self, path):
        """Perplexity by llama.cpp, divergence from the unquantised outputs, perplexity by lathe."""
        patterns = [MEAN_PERPLEXITY, DIVERGENCE]
        text = self.llama_perplexity(path, patterns, "--kl-divergence", "--kl-divergence-base", self.logits)
        perplexity = found(MEAN_PERPLEXITY, text, path)
        return perplexity, found(DIVERGENCE, text, path), self.lathe_perplexity(path)

    def compare(self, name):
        """Rows of the table for one type."""
        ours, theirs = self.folder / f"lathe-{name}.gguf", self.folder / f"llama-{name}.gguf"
        run([self.args.lathe, "quantize", self.args.model, ours, "--type", name, "-q"])
        self.llama("llama-quantize", self.base, theirs, name.upper(), str(self.args.threads))
        for quantiser, path in (("lathe", ours), ("llama.cpp", theirs)):
            perplexity, divergence, by_lathe = self.score(path)
            print_row(name, quantiser, path, perplexity, f"{divergence:.6f}", by_lathe)
            path.unlink()


def main():
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", type=pathlib.Path, default=pathlib.Path("build/lathe"), help="the program lathe")
    parser.add_argument("--llama", type=pathlib.Path, required=True, help="folder of the programs of llama.cpp")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder in HuggingFace layout, or GGUF file")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="UTF-8 text to score")
    parser.add_argument("--types", nargs="+", default=TYPES, choices=TYPES)
    parser.add_argument("--base", default="bf16", choices=["bf16", "f16", "f32"], help="type of the unquantised file")
    parser.add_argument("--ctx", type=int, default=512, help="tokens per window")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    for path in (args.lathe, args.llama / "llama-quantize", args.llama / "llama-perplexity", args.model, args.text):
        if not path.exists():
            sys.exit(f"{path}: not found")
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(args, pathlib.Path(folder))
        by_llama, by_lathe = comparison.prepare()
        print("| type | quantiser | bytes | perplexity (llama.cpp) | divergence | perplexity (lathe) |")
        print("|---|---|---|---|---|---|")
        print_row(args.base, "lathe", comparison.base, by_llama, "0", by_lathe)
        for name in args.types:
            comparison.compare(name)


if __name__ == "__main__":
    main()
