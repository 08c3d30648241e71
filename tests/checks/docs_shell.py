"""Runs the shell blocks of the documentation.

A block that opens with ```sh run is executed by bash with -eu -o pipefail, in a folder of its own per document that
shows the source tree with `build` being the build folder under test; what it writes stays there. A block that opens
with ```sh norun is not executed (network, root, hours), and any other block of a shell language is an error, so that
each block is a decision.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import tree

OPEN = re.compile(r"^(```+)\s*(sh|bash|shell|console)\b\s*(\w*)\s*$")
TIMEOUT_SECONDS = 120


def blocks(text):
    """(line number, mode, commands) of every shell block; an unclosed one runs to the end."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        match = OPEN.match(line)
        if not match:
            fence = re.match(r"^(```+)", line)
            if fence:  # skip the body of other blocks
                for _, inner in lines:
                    if inner.strip() == fence.group(1):
                        break
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == match.group(1):
                break
            body.append(inner)
        mode = match.group(3) if match.group(2) == "sh" else "unknown"
        yield number, mode, "\n".join(body) + "\n"


def make_folder(folder, root, build):
    """Links everything at the top of the source tree into folder, and the build folder as `build`."""
    for entry in root.iterdir():
        if entry.name != ".git" and not entry.name.startswith("build"):
            (folder / entry.name).symlink_to(entry)
    (folder / "build").symlink_to(build)


def run_block(commands, folder, build):
    """None, or what went wrong."""
    environment = dict(os.environ, PATH=f"{build}:{os.environ['PATH']}", HOME=str(folder))
    try:
        result = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", commands],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"expected to end within {TIMEOUT_SECONDS} s"
    if result.returncode == 0:
        return None
    tail = result.stdout.decode(errors="replace").splitlines()[-15:]
    return "\n    ".join([f"exit code {result.returncode}"] + tail)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    root, build = arguments.root.resolve(), arguments.build.resolve()
    findings, executed = [], 0
    for path in tree.files(root, ".md"):
        with tempfile.TemporaryDirectory(prefix="lathe-docs-") as name:
            folder = pathlib.Path(name)
            make_folder(folder, root, build)
            for number, mode, commands in blocks(tree.read(root, path)):
                if mode == "run":
                    executed += 1
                    problem = run_block(commands, folder, build)
                    if problem:
                        findings.append(f"{path}:{number}: {problem}")
                elif mode != "norun":
                    findings.append(f"{path}:{number}: a shell block says `sh run` or `sh norun`")
    print(f"docs_shell: {executed} block(s) executed")
    sys.stdout.flush()
    tree.report("docs_shell", findings)


if __name__ == "__main__":
    main()
