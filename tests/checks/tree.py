"""What the checks share: the files of the source tree, and how findings are reported."""

import argparse
import os
import pathlib
import subprocess
import sys

SKIPPED_FOLDERS = {".git", ".cache", "__pycache__"}


def parse_root(description):
    """The --root option every check takes: the source tree to look at."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    return parser.parse_args().root.resolve()


def files(root, *suffixes):
    """Paths relative to root of the project's files with one of the suffixes, sorted; all files without a suffix.

    Files git ignores do not count. Outside a git work tree everything but build folders counts.
    """
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0 and (root / ".git").exists():
        names = [name for name in listing.stdout.decode().split("\0") if name]
    else:
        names = []
        for folder, folders, here in os.walk(root):
            at_top = pathlib.Path(folder) == root
            folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and not (at_top and f.startswith("build"))]
            names += [str((pathlib.Path(folder) / name).relative_to(root)) for name in here]
    paths = sorted({pathlib.PurePosixPath(name) for name in names})
    return [p for p in paths if (not suffixes or p.suffix in suffixes) and (root / p).is_file()]


def read(root, path):
    """The text of a file; bytes that are not UTF-8 are replaced."""
    return (root / path).read_text(encoding="utf-8", errors="replace")


def report(name, findings, warnings=()):
    """Prints one line per finding and ends the process: 0 without findings, 1 with."""
    for line in warnings:
        print(f"{name}: warning: {line}")
    for line in findings:
        print(f"{name}: {line}")
    if findings:
        print(f"{name}: {len(findings)} finding(s)")
    sys.exit(1 if findings else 0)
