#!/usr/bin/env python3
"""Speed of Lathe beside llama.cpp and ik_llama.cpp on the same GGUF file, as a Markdown table.

The engines take turns: each round runs every one of them once over all cases, so that what else the machine does hits
all alike. The median of the rounds counts; the ratio is Lathe's median over the other's. Peers that are not given are
left out. The best settings of each are its own: the defaults below are those that were best on two cores, and
--llama-args, --ik-args and --lathe-args change them.

    tools/bench_peers.py MODEL.gguf --lathe build/lathe --llama llama.cpp/bin/llama-bench --ik ik/bin/llama-bench \\
        --ik-sweep ik/bin/llama-sweep-bench -t 2 --prompt 512 --gen 32 --depth 0,4096 --rounds 5 --out table.md

llama-bench of ik_llama.cpp cannot measure a prompt at a depth; llama-sweep-bench can, and is used for it where it is
given. Exits with 1 when an engine fails, with 3 when a ratio is below --at-least.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

DEFAULT_ARGS = {"lathe": "", "llama": "-fa 1", "ik": "-fa 1 -mla 3 -rtr 1 -ctk q8_0"}
# Flash attention is on unasked; how to ask for it depends on the version.
SWEEP_ARGS = "-mla 3 -rtr -ctk q8_0"
TITLES = {"lathe": "Lathe", "ik": "ik_llama.cpp", "llama": "llama.cpp"}


def fail(message):
    sys.exit(f"bench_peers.py: {message}")


def numbers(text):
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, found {text!r}") from None
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"expected numbers from 0, found {text!r}")
    return values


def run(command, errors=False):
    """Standard output of a program that must succeed, with what it wrote to standard error behind it if wanted."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        fail(f"{shlex.join(map(str, command))}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr if errors else done.stdout


class Lathe:
    """`lathe bench`; a case is (kind, tokens, depth)."""

    def __init__(self, options):
        self.command = [options.lathe, "bench", "-m", options.model, "-t", options.threads, "--repeat", 1, "--json", "-q",
                        "--prompt", ",".join(map(str, options.prompt)), "--gen", options.gen,
                        "--depth", ",".join(map(str, options.depth)), *shlex.split(options.lathe_args)]
        self.note = ""

    def round(self):
        document = json.loads(run(self.command))
        machine = document["machine"]
        self.note = "%s, kernels %s; %.1f GB/s, int8 %.0f Gop/s" % (
            machine["cpu"], machine["isa"], machine["bandwidth_bytes_per_s"] / 1e9, machine["int8_peak_op_per_s"] / 1e9)
        return {(row["kind"], row["tokens"], row["depth"]): row["tok_per_s"]["median"] for row in document["rows"]}


class Llama:
    """llama-bench of llama.cpp, which has depths."""

    def __init__(self, options):
        self.command = [options.llama, "-m", options.model, "-t", options.threads, "-r", 1, "-o", "json",
                        "-p", ",".join(map(str, options.prompt)), "-n", options.gen,
                        "-d", ",".join(map(str, options.depth)), *shlex.split(options.llama_args)]
        self.note = ""

    def round(self):
        out = {}
        for test in json.loads(run(self.command)):
            self.note = f"build {test.get('build_commit', 'unknown')}"
            kind, tokens = ("gen", test["n_gen"]) if test["n_gen"] > 0 else ("prompt", test["n_prompt"])
            out[(kind, tokens, test.get("n_depth", 0))] = test["avg_ts"]
        return out


class Ik:
    """llama-bench of ik_llama.cpp: generation after a prompt stands for a depth; prompts at a depth by the sweep."""

    def __init__(self, options):
        self.options = options
        deeper = [depth for depth in options.depth if depth > 0]
        self.command = [options.ik, "-m", options.model, "-t", options.threads, "-r", 1, "-o", "json",
                        "-p", ",".join(map(str, options.prompt)) if 0 in options.depth else 0,
                        "-n", options.gen if 0 in options.depth else 0]
        for depth in deeper if options.gen > 0 else []:
            self.command += ["-gp", f"{depth},{options.gen}"]
        self.command += shlex.split(options.ik_args)
        self.sweeps = [(tokens, depth) for tokens in options.prompt for depth in deeper
                       if options.ik_sweep and tokens > 0 and depth % tokens == 0]
        self.note = ""

    def sweep(self, tokens, depth):
        """The prompt chunk of `tokens` that begins at `depth`; chunks before it are not measured."""
        text = run([self.options.ik_sweep, "-m", self.options.model, "-t", self.options.threads, "-c", depth + tokens,
                    "-b", tokens, "-ub", tokens, "-n", 1, "--sweep-stride", depth // tokens, "--output-format", "jsonl",
                    *shlex.split(self.options.ik_sweep_args)], errors=True)  # where rows go depends on the version
        for line in text.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                if row["n_kv"] == depth:
                    return row["speed_pp"]
        return fail(f"{self.options.ik_sweep}: expected a row of n_kv {depth}, found none")

    def round(self):
        out = {}
        for test in json.loads(run(self.command)):
            self.note = f"build {test.get('build_commit', 'unknown')}"
            n_prompt, n_gen = int(test["n_prompt"]), int(test["n_gen"])
            case = ("gen", n_gen, n_prompt) if n_gen > 0 else ("prompt", n_prompt, 0)
            out[case] = float(test["avg_ts"])
        for tokens, depth in self.sweeps:
            out[("prompt", tokens, depth)] = self.sweep(tokens, depth)
        return out


def wanted_cases(options):
    cases = [("prompt", tokens, depth) for tokens in options.prompt if tokens > 0 for depth in options.depth]
    return cases + [("gen", options.gen, depth) for depth in options.depth if options.gen > 0]


def short(value):
    """Four digits, but all those before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def cell(values):
    if not values:
        return "-"
    return f"{short(statistics.median(values))} ({short(min(values))} to {short(max(values))})"


def table(options, engines, samples):
    """The Markdown, and the smallest ratio (None without peers)."""
    peers = [name for name in engines if name != "lathe"]
    head = ["case", "depth", "Lathe, tok/s"]
    for name in peers:
        head += [f"{TITLES[name]}, tok/s", "ratio"]
    lines = [f"{pathlib.Path(options.model).name}, {options.threads} threads, median of {options.rounds} rounds "
             "(lowest to highest), engines in turns:", ""]
    for name, engine in engines.items():
        lines.append(f"- {TITLES[name]} ({engine.note}): `{shlex.join(map(str, engine.command))}`")
    lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    smallest = None
    for case in wanted_cases(options):
        ours = samples["lathe"].get(case, [])
        row = [f"{case[0]} {case[1]}", str(case[2]), cell(ours)]
        for name in peers:
            theirs = samples[name].get(case, [])
            ratio = statistics.median(ours) / statistics.median(theirs) if ours and theirs else None
            row += [cell(theirs), "-" if ratio is None else f"{ratio:.2f}"]
            if ratio is not None:
                smallest = ratio if smallest is None else min(smallest, ratio)
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n", smallest


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--lathe", required=True, help="the program lathe")
    parser.add_argument("--llama", help="llama-bench of llama.cpp")
    parser.add_argument("--ik", help="llama-bench of ik_llama.cpp")
    parser.add_argument("--ik-sweep", help="llama-sweep-bench of ik_llama.cpp")
    parser.add_argument("-t", "--threads", type=int, required=True)
    parser.add_argument("--prompt", type=numbers, default=[512])
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--depth", type=numbers, default=[0])
    parser.add_argument("--rounds", type=int, default=5)
    for name, default in DEFAULT_ARGS.items():
        parser.add_argument(f"--{name}-args", default=default, help=f"default: {default or 'none'}")
    parser.add_argument("--ik-sweep-args", default=SWEEP_ARGS, help=f"default: {SWEEP_ARGS}")
    parser.add_argument("--out", type=pathlib.Path, help="where the table goes; default: standard output")
    parser.add_argument("--samples", type=pathlib.Path, help="where every measurement goes, as JSON")
    parser.add_argument("--at-least", type=float, help="the smallest ratio to accept")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, found {options.rounds}")
    return options


def main():
    options = parse()
    engines = {"lathe": Lathe(options)}
    if options.ik:
        engines["ik"] = Ik(options)
    if options.llama:
        engines["llama"] = Llama(options)
    samples = {name: {} for name in engines}
    for number in range(options.rounds):
        for name, engine in engines.items():
            print(f"round {number + 1} of {options.rounds}: {TITLES[name]}", file=sys.stderr)
            for case, speed in engine.round().items():
                samples[name].setdefault(case, []).append(speed)
    text, smallest = table(options, engines, samples)
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")
    if options.samples:
        options.samples.write_text(json.dumps({name: [{"kind": kind, "tokens": tokens, "depth": depth, "tok_per_s": values}
                                                      for (kind, tokens, depth), values in found.items()]
                                               for name, found in samples.items()}, indent=1) + "\n")
    if options.at_least is not None and (smallest is None or smallest < options.at_least):
        print(f"bench_peers.py: expected ratios of at least {options.at_least}, found {smallest}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
