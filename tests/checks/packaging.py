#!/usr/bin/env python3
"""What the program is shipped with: the systemd unit as systemd judges it, and the Dockerfile against program and tree.

    packaging.py --root . --build build --program build/lathe --unit build/packaging/lathe.service
"""

import argparse
import json
import os
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


def direct_libraries(program):
    """Packages of the libraries that the program itself names."""
    _, dump = output_of("objdump", "-p", program)
    _, loaded = output_of("ldd", program)
    where = dict(re.findall(r"^\s*(\S+) => (/\S+)", loaded, re.M))
    names = re.findall(r"^\s*NEEDED\s+(\S+)", dump, re.M)
    return {package_of(pathlib.Path(where[name]).resolve()) for name in names if name in where} - {""}


def check_build_stage(root, stage):
    """Paths, groups of packages, preset, options and targets against the tree and `make build`."""
    for name in re.findall(r"^RUN (tools/\S+)", stage, re.M):
        if not os.access(root / name, os.X_OK):
            yield f"Dockerfile: RUN {name}: not a program in the tree"
    script = (root / "tools/install_packages.sh").read_text(encoding="utf-8")
    for group in re.search(r"^RUN tools/install_packages.sh (.+)$", stage, re.M).group(1).split():
        if not re.search(rf"^    {group}\)", script, re.M):
            yield f"Dockerfile: install_packages.sh has no group {group}"
    for names in re.findall(r"^COPY (?!--)(.+) \S+$", stage, re.M):
        for name in names.split():
            if not (root / name).exists():
                yield f"Dockerfile: COPY {name}: not in the tree"
    preset = re.search(r"--preset (\S+)", stage).group(1)
    presets = json.loads((root / "CMakePresets.json").read_text(encoding="utf-8"))["configurePresets"]
    folders = [p.get("binaryDir") for p in presets if p["name"] == preset]
    if folders != ["${sourceDir}/build"]:
        yield f"Dockerfile: expected one preset {preset} with the folder build, found {folders}"
    lists = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    for option in re.findall(r"-D(LATHE_\w+)=", stage):
        if f"option({option} " not in lists:
            yield f"Dockerfile: CMakeLists.txt has no option {option}"
    make = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"--target ([\w ]+?) (?:-j|&&|$)", stage).group(1)
    if f"--target {targets} >" not in make:
        yield f"Dockerfile: expected the targets of the Makefile, found {targets}"


def check_copies(stage, build):
    """What the last stage copies, against what an installation has."""
    with tempfile.TemporaryDirectory(prefix="lathe-image-") as folder:
        code, said = output_of("env", f"DESTDIR={folder}/out", "cmake", "--install", build, "--prefix", "/usr")
        if code != 0:
            yield f"cmake --install: {said[-1500:].strip()}"
            return
        for names in re.findall(r"^COPY --from=build (.+) \S+$", stage, re.M):
            for name in names.split():
                if not (pathlib.Path(folder) / name.lstrip("/")).exists():
                    yield f"Dockerfile: COPY --from=build {name}: an installation has no such file"


def check_packages(root, stage, program):
    """The packages of the last stage: those of the program's libraries and the two that it has besides."""
    if not all(shutil.which(tool) for tool in ("dpkg", "dpkg-query", "ldd", "objdump")):
        print("dpkg or objdump is not here: packages were not compared")
        return
    named = set(re.search(r"apt-get install -y --no-install-recommends\s+([^&]*)", stage).group(1).split())
    needed = direct_libraries(program)
    if named != needed | {"ca-certificates", "curl"}:
        yield f"Dockerfile: expected the packages {sorted(needed)}, ca-certificates and curl in the last stage, found {sorted(named)}"
    script = (root / "tools/install_packages.sh").read_text(encoding="utf-8")
    build_group = re.search(r"^    build\)\s+echo ([^;]*);;", script, re.M).group(1).replace("\\\n", " ").split()
    _, depends = output_of("dpkg-query", "-W", "-f=${Depends}, ", *build_group)
    for package in needed - {"libc6", "libgcc-s1", "libstdc++6"}:  # the compiler's own
        if not re.search(rf"(?:^|[ ,|]){re.escape(package)}(?:[ ,:(]|$)", depends):
            yield f"install_packages.sh: expected a package of the group build that brings {package}, found none"


def check_settings(root, text, stage, program):
    """User, variables, health check and commands against the program."""
    user = re.search(r"^USER (\S+)$", stage, re.M)
    if not user or user.group(1) == "root" or not re.search(rf"useradd .*\b{user.group(1)}\b", stage):
        yield "Dockerfile: expected a USER of the last stage that useradd makes, and not root"
    _, usage = output_of(program, "serve", "--help")
    for variable in sorted(set(re.findall(r"\bLATHE_\w+", re.sub(r"-D\w+=", "", text)))):
        if f"Env:{variable})" not in usage.replace("\n", ""):
            yield f"Dockerfile: lathe serve reads no {variable}"
    health = re.search(r"^HEALTHCHECK .*127\.0\.0\.1:\$\{LATHE_PORT:-(\d+)\}(/\w+)\"", stage, re.M)
    routes = (root / "src/lathe/server/routes.cpp").read_text(encoding="utf-8")
    if not health or f'.path = "{health.group(2)}", .open = true' not in routes:
        yield "Dockerfile: expected a HEALTHCHECK of a path that is open to all"
    elif f"EXPOSE {health.group(1)}\n" not in stage or f"(default {health.group(1)})" not in usage:
        yield f"Dockerfile: expected the port of lathe serve, found {health.group(1)}"
    entry = json.loads(re.search(r"^ENTRYPOINT (.+)$", stage, re.M).group(1))
    if not re.search(rf"^COPY --from=build \S+/bin/{entry[0]} /usr/bin/{entry[0]}$", stage, re.M):
        yield f"Dockerfile: ENTRYPOINT {entry[0]}: not copied to /usr/bin"
    command = json.loads(re.search(r"^CMD (.+)$", stage, re.M).group(1))
    if not re.search(rf"^  {command[0]} ", output_of(program, "--help")[1], re.M):
        yield f"Dockerfile: CMD {command[0]}: not a command of the program"


def check_dockerfile(root, program, build):
    text = (root / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    _, build_stage, last = re.split(r"^FROM ", text, flags=re.M)
    if build_stage.split()[0] != last.split()[0]:
        yield "Dockerfile: expected one base image, whose libraries the program is linked with, found two"
    yield from check_build_stage(root, build_stage)
    yield from check_copies(last, build)
    yield from check_packages(root, last, program)
    yield from check_settings(root, text, last, program)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--unit", type=pathlib.Path, required=True)
    options = parser.parse_args()
    program = options.program.resolve()
    problems = [*check_unit(options.unit, program), *check_dockerfile(options.root, program, options.build)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
