"""Installs, moves what was installed, and builds and runs programs against it: by CMake package and by pkg-config."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = [
    "bin/lathe",
    "include/lathe/lathe.h",
    "include/lathe/lathe_c.h",
    "lib/systemd/system/lathe.service",
    "share/lathe/models/storyteller/config.json",
    "share/lathe/models/storyteller/model.safetensors",
    "share/lathe/models/storyteller/tokenizer.json",
    "share/doc/lathe/LICENSE",
]


def run(*command, **options):
    """Standard output of a command that must succeed within a minute."""
    result = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    if result.returncode != 0:
        print(f"install: {' '.join(map(str, command))}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
        sys.exit(1)
    return result.stdout


def expect(actual, expected, what):
    if actual != expected:
        print(f"install: {what}: expected {expected!r}, found {actual!r}")
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--version", required=True)
    parser.add_argument("--shared", action="store_true")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="lathe-install-") as name:
        folder = pathlib.Path(name)
        run(arguments.cmake, "--install", arguments.build, "--prefix", folder / "first")
        stage = folder / "moved"
        (folder / "first").rename(stage)  # nothing may remember where it was installed
        library = next(iter(stage.rglob("liblathe.so" if arguments.shared else "liblathe.a")), None)
        for path in EXPECTED:
            if not (stage / path).is_file():
                expect("nothing", "a file", path)
        if library is None:
            expect("nothing", "liblathe", "library")
        headers = [p for p in (stage / "include").rglob("*") if p.is_file()]
        expect([p.name for p in headers if p.parent != stage / "include/lathe"], [], "headers outside include/lathe")

        environment = {n: v for n, v in os.environ.items() if not n.startswith(("LATHE_", "CMAKE_", "PKG_CONFIG"))}
        environment["PKG_CONFIG_PATH"] = str(library.parent / "pkgconfig")
        if arguments.shared:
            environment["LD_LIBRARY_PATH"] = str(library.parent)

        # The installed program, and then programs against either interface by either way of finding the library.
        model = stage / "share/lathe/models/storyteller"
        prompt, tokens = "The king", "8"
        command = [stage / "bin" / "lathe", "generate", "-m", model, "-p", prompt, "-n", tokens, "--temperature", "0"]
        text = run(*command, env=environment, cwd=folder)
        expect(bool(text.strip()), True, "installed program generates text")
        expected = f"{arguments.version}\n{text}"

        def expect_answer(program, what):
            expect(run(program, model, prompt, tokens, env=environment), expected, what)

        # The Python package finds the library in its own prefix.
        if arguments.shared:
            python = {n: v for n, v in environment.items() if n not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
            python["PYTHONPATH"] = str(stage / "share/lathe/python")
            python["PYTHONDONTWRITEBYTECODE"] = "1"
            python["LATHE_TEST_MODEL"] = str(model)
            python["LATHE_TEST_DOCUMENT"] = str(stage / "share/doc/lathe/python.md")
            run(sys.executable, HERE.parent / "python" / "lathe_test.py", env=python, cwd=folder)

        consumer = folder / "consumer"
        shutil.copytree(HERE / "consumer", consumer)
        run(arguments.cmake, "-S", consumer, "-B", folder / "by_cmake", f"-DCMAKE_PREFIX_PATH={stage}", env=environment)
        run(arguments.cmake, "--build", folder / "by_cmake", env=environment)
        for program in ("consumer_cpp", "consumer_c"):
            expect_answer(folder / "by_cmake" / program, program)

        flags = run("pkg-config", "--cflags", "--libs", "lathe", env=environment).split()
        warnings = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
        run("cc", *warnings, consumer / "consumer.c", "-o", folder / "by_pkg", *flags)
        expect_answer(folder / "by_pkg", "pkg-config program")
        version = run("pkg-config", "--modversion", "lathe", env=environment).strip()
        expect(version, arguments.version, "pkg-config version")


if __name__ == "__main__":
    main()
