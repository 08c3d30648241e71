#!/usr/bin/env python3
"""What the program is shipped with: the systemd unit as systemd judges it, and the Dockerfile against program and tree.

    packaging.py --root . --program build/lathe --unit build/packaging/lathe.service
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# systemd-analyze security: 0 (nothing is open) to 100.
MOST_EXPOSURE = 20


def output_of(*command):
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def check_unit(unit, program):
    """The unit with the program where it was built."""
    text = unit.read_text(encoding="utf-8")
    if left := re.search(r"@\w+@", text):
        yield f"{unit}: expected every variable filled in, found {left.group()}"
    lines = re.findall(r"^ExecStart=(\S+) serve$", text, re.M)
    if len(lines) != 1 or not lines[0].startswith("/"):
        yield f"{unit}: expected one ExecStart=/.../lathe serve, found {lines}"
        return
    if shutil.which("systemd-analyze") is None:
        print("systemd-analyze is not here: the unit was not verified")
        return
    with tempfile.TemporaryDirectory(prefix="lathe-unit-") as folder:
        copy = pathlib.Path(folder) / "lathe.service"
        copy.write_text(text.replace(lines[0], str(program)), encoding="utf-8")
        for command in (("verify", "--man=no"), ("security", "--offline=true", f"--threshold={MOST_EXPOSURE}")):
            code, said = output_of("systemd-analyze", *command, copy)
            complaints = said if code != 0 or (command[0] == "verify" and "lathe.service" in said) else ""
            if complaints:
                yield f"{unit}: systemd-analyze {command[0]}: {complaints[-1500:].strip()}"


def package_of(library):
    """The Debian package of a file, which the package may know below / or below /usr; empty: none."""
    parts = library.parts[2:] if library.parts[1] == "usr" else library.parts[1:]
    for candidate in (pathlib.Path("/", *parts), pathlib.Path("/usr", *parts)):
        code, said = output_of("dpkg", "-S", candidate)
        if code == 0:
            return said.split(":")[0]
    return ""


def check_dockerfile(root, program):
    path = root / "Dockerfile"
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    build, run = text.split("\nFROM ")[1:]
    if not re.search(r"^USER (?!root)\S+$", run, re.M) or not re.search(r"^HEALTHCHECK ", run, re.M):
        yield "Dockerfile: expected a USER other than root and a HEALTHCHECK in the last stage"
    for source in re.findall(r"^COPY (?!--)(.+) \S+$", build, re.M):
        for name in source.split():
            if not (root / name).exists():
                yield f"Dockerfile: COPY {name}: not in the tree"
    installed = re.search(r"apt-get install -y --no-install-recommends\s+([^&]*)", run).group(1).split()
    if shutil.which("dpkg") is None or shutil.which("ldd") is None:
        print("dpkg is not here: packages were not compared")
        return
    code, libraries = output_of("ldd", program)
    if code != 0:
        yield f"ldd {program}: {libraries.strip()}"
    found = re.findall(r"^\s*(lib(?:c|curl|edit|gcc_s|pcre2-8|crypto|stdc\+\+|zstd)\.so\S*) => (\S+)", libraries, re.M)
    for name, where in found:
        owner = package_of(pathlib.Path(where).resolve())
        if owner and owner not in installed:
            yield f"Dockerfile: expected {owner}, which has {name}, among the packages of the last stage"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--unit", type=pathlib.Path, required=True)
    options = parser.parse_args()
    problems = [*check_unit(options.unit, options.program.resolve()), *check_dockerfile(options.root, options.program)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
