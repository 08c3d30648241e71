#!/usr/bin/env python3
"""Runs the program on every hostile model folder and checks how it behaves.

  run_hostile.py --program build/lathe [--jobs 2] [--only TEXT ...] [--keep FOLDER] [--sanitized]

For every case: no signal, no time-out, no memory beyond the model plus 512 MB; after an error exactly one line that
begins with `lathe: error:`, last on stderr, free of control characters, not longer than 1000 bytes, naming what the case
says; the exit code the case allows. Exit 0 when every case passes.
"""

import argparse
import concurrent.futures
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from make_hostile import all_cases, folder_name, write_case  # noqa: E402

CPU_SECONDS = 20
WALL_SECONDS = 30
ADDRESS_SPACE = 3 << 30
RESIDENT_MARGIN = 512 << 20
OUTPUT_BYTES = 64 << 20
MAX_LINE = 1000
MAX_STDERR_LINES = 60
ERROR_PREFIX = "lathe: error: "
SANITIZER = re.compile(
    r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error:|terminate called|Assertion"
)
# Control characters other than the newline, in whatever encoding they arrive.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")


def limits(sanitized):
    def set_limits():
        factor = 10 if sanitized else 1
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS * factor, CPU_SECONDS * factor + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
        if not sanitized:  # sanitizers reserve terabytes of addresses
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    return set_limits


def environment(home):
    """A clean one: no settings of whoever runs this, no network."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
    }
    return {**kept, "HOME": home, "HF_HOME": os.path.join(home, "hf"), "HF_HUB_OFFLINE": "1", "LC_ALL": "C.UTF-8"}


class Outcome:
    def __init__(self, code, stderr, seconds, resident, timed_out):
        self.code = code
        self.stderr = stderr
        self.seconds = seconds
        self.resident = resident
        self.timed_out = timed_out


def run(program, row, home, sanitized):
    """Runs one case; stdout is dropped, stderr kept up to a bound, peak memory read from the kernel."""
    wall = WALL_SECONDS * (10 if sanitized else 1)
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        # The outputs are files, not pipes: a program that prints without end meets RLIMIT_FSIZE.
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [program] + row["arguments"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment(home),
                cwd=home,
                preexec_fn=limits(sanitized),
            )
            timed_out = threading.Event()

            def stop():
                timed_out.set()
                process.kill()

            timer = threading.Timer(wall, stop)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        errors.seek(0)
        text = errors.read(1 << 20)
    return Outcome(process.returncode, text, seconds, usage.ru_maxrss * 1024, timed_out.is_set())


def check_text(text):
    """Complaints about stderr whatever the outcome, and its error lines."""
    complaints = []
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        complaints.append("stderr is not UTF-8")
        decoded = text.decode(errors="replace")
    lines = [line for line in decoded.split("\n") if line]
    if CONTROL.search(decoded):
        complaints.append("control characters on stderr")
    if SANITIZER.search(decoded):
        complaints.append("a sanitizer or the C++ library complains")
    if any(len(line.encode()) > MAX_LINE for line in lines):
        complaints.append(f"a line on stderr is longer than {MAX_LINE} bytes")
    if len(lines) > MAX_STDERR_LINES:
        complaints.append(f"{len(lines)} lines on stderr")
    return complaints, lines


def judge(row, outcome, sanitized):
    """What is wrong with an outcome; empty when nothing is."""
    if outcome.timed_out:
        return [f"still running after {outcome.seconds:.0f} s"]
    if outcome.code < 0:
        return [f"killed by signal {-outcome.code}"]
    complaints, lines = check_text(outcome.stderr)
    errors = [line for line in lines if line.startswith(ERROR_PREFIX)]
    if not sanitized and outcome.resident > row["bytes"] + RESIDENT_MARGIN:
        complaints.append(f"{outcome.resident >> 20} MB resident for a model of {row['bytes'] >> 20} MB")
    if outcome.code == 0:
        if errors:
            complaints.append("an error line although the exit code is 0")
        if row["expect"] == "error":
            complaints.append("accepted, expected an error")
        return complaints
    if row["expect"] == "loads":
        complaints.append(f"refused with exit code {outcome.code}, expected to load")
    elif outcome.code not in row["exits"]:
        complaints.append(f"exit code {outcome.code}, expected {' or '.join(map(str, row['exits']))}")
    if len(errors) != 1:
        complaints.append(f"{len(errors)} error lines, expected 1")
    elif lines[-1] != errors[0]:
        complaints.append("the error line is not the last line")
    mentions = row["mentions"]
    # A case that may also load has no one cause, so its error need not name one.
    if (
        row["expect"] == "error"
        and mentions
        and not any(m.lower() in line.lower() for m in mentions for line in errors)
    ):
        complaints.append(f"the error line names none of {mentions}")
    return complaints


def run_case(program, case, bases, root, options):
    folder = os.path.join(root, folder_name(case.name))
    row = write_case(case, bases, folder)
    outcome = run(program, row, root, options.sanitized)
    complaints = judge(row, outcome, options.sanitized)
    if complaints and options.keep:
        kept = os.path.join(options.keep, folder_name(case.name))
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(
            folder,
            kept,
            symlinks=True,
            ignore=lambda at, names: [
                n
                for n in names
                if not (
                    os.path.islink(os.path.join(at, n))
                    or os.path.isdir(os.path.join(at, n))
                    or os.path.isfile(os.path.join(at, n))
                )
            ],
        )
    shutil.rmtree(folder)
    return case, row, outcome, complaints


def report(results):
    failed = [result for result in results if result[3]]
    for case, row, outcome, complaints in failed:
        print(f"FAILED {case.name}: {'; '.join(complaints)}")
        print(f"  arguments: {' '.join(a if len(a) < 200 else a[:60] + '...' for a in row['arguments'])}")
        for line in outcome.stderr.decode(errors="backslashreplace").splitlines()[-3:]:
            print(f"  stderr: {line[:300]!r}")
    refusals = [outcome.seconds for _, _, outcome, _ in results if outcome.code != 0]
    if refusals:
        print(f"median time of an error {1000 * statistics.median(refusals):.0f} ms, longest {max(refusals):.1f} s")
    peak = max(results, key=lambda result: result[2].resident)
    print(f"peak memory {peak[2].resident >> 20} MB in {peak[0].name}")
    print(f"{len(results) - len(failed)} of {len(results)} cases passed")
    return not failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the lathe program")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="only cases whose name contains a TEXT")
    parser.add_argument("--keep", metavar="FOLDER", help="copy the folders of failed cases here")
    parser.add_argument("--sanitized", action="store_true", help="the program is a sanitizer build: no memory limits")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    listed, bases = all_cases()
    if options.only:
        listed = [case for case in listed if any(text in case.name for text in options.only)]
    if not listed:
        raise SystemExit("no case has such a name")
    if options.keep:
        os.makedirs(options.keep, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lathe-hostile-") as root:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(lambda case: run_case(program, case, bases, root, options), listed))
    sys.exit(0 if report(results) else 1)


if __name__ == "__main__":
    main()
