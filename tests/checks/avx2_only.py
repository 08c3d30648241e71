"""On a processor without AVX-512 the program works, and generates the very tokens that it generates here.

Runs the program under qemu-x86_64 as a Haswell: AVX2, no AVX-512.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

PROMPT = "Once upon a time there was a poor woodcutter who lived with his wife"
TOKENS = 8
EMULATOR = ["qemu-x86_64", "-cpu", "Haswell"]


def fail(text):
    print(f"avx2_only: {text}")
    sys.exit(1)


def run(command, environment=None):
    """The finished process; anything but a plain exit is a failure of the test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LATHE_")}
    result = subprocess.run(
        [str(part) for part in command],
        env=clean | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if result.returncode < 0 or result.returncode >= 128:
        fail(f"{' '.join(map(str, command))}: ended by a signal ({result.returncode})\n{result.stderr}")
    return result


def generate(prefix, program, model):
    """The parsed output of one greedy generation."""
    command = [*prefix, program, "generate", "-m", model, "-p", PROMPT, "-n", TOKENS, "--json"]
    command += ["--temperature", 0, "--ignore-eos"]
    result = run(command)
    if result.returncode != 0:
        fail(f"{' '.join(map(str, command))}: exit code {result.returncode}\n{result.stderr}")
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if shutil.which(EMULATOR[0]) is None:
        fail(f"{EMULATOR[0]}: expected it in PATH (package qemu-user), found none")

    # Were AVX-512 there after all, the rest would prove nothing.
    forced = run([*EMULATOR, arguments.program, "inspect", arguments.model], {"LATHE_ISA": "avx512vnni"})
    if forced.returncode != 2 or "avx512vnni" not in forced.stderr:
        fail(f"LATHE_ISA=avx512vnni on a Haswell: expected exit code 2, found {forced.returncode}\n{forced.stderr}")

    here = generate([], arguments.program, arguments.model)
    there = generate(EMULATOR, arguments.program, arguments.model)
    for key in ("prompt_token_ids", "token_ids", "text"):
        if here[key] != there[key]:
            fail(f"{key}: expected {here[key]} as on this machine, found {there[key]}")
    if len(here["token_ids"]) != TOKENS:
        fail(f"token_ids: expected {TOKENS}, found {len(here['token_ids'])}")


if __name__ == "__main__":
    main()
