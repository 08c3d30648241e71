"""Nothing unfinished or switched off: no TODO without an issue number, no disabled test, no commented-out code."""

import re

import tree

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
DISABLED = re.compile(r"\bDISABLED_\w")
MACHINE = re.compile(r"(?<![\w./])/(work|root)/")
# A comment that is a whole statement. Prose ends in a full stop and formulas have no semicolon, so this rarely errs;
# examples in doc comments are indented.
CODE_COMMENT = re.compile(
    r"^\s*// ?(?:(?:return\b.*|[\w:<>,*& ]+\s=\s.*|[\w.:>-]+\(.*\)|(?:int|auto|const|static|bool|float)\b.*);"
    r"|#\s*include\b.*|(?:if|for|while|switch)\s*\(.*\)\s*\{)\s*$"
)
PYTHON_CODE_COMMENT = re.compile(r"^\s*#\s*(?:import \w+|from \w+ import .*|def \w+\(.*|print\(.*\)|return \w+)\s*$")
SELF = {"tests/checks/markers.py", "tests/checks/checks_test.py"}


def findings_of(path, text):
    """The findings of one file."""
    is_python = path.suffix == ".py"
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}"
        if UNFINISHED.search(line):
            yield f"{where}: expected an issue number, as in TODO(#12): {line.strip()}"
        if DISABLED.search(line):
            yield f"{where}: a disabled test: {line.strip()}"
        if MACHINE.search(line):
            yield f"{where}: a path of one machine: {line.strip()}"
        if (PYTHON_CODE_COMMENT if is_python else CODE_COMMENT).match(line):
            yield f"{where}: commented-out code: {line.strip()}"


def main():
    root = tree.parse_root(__doc__)
    findings = []
    for path in tree.files(root, ".cpp", ".h", ".c", ".cu", ".py", ".cmake", ".sh", ".txt", ".in"):
        if path.as_posix() in SELF or path.parts[:2] == ("tests", "golden") or "corpus" in path.parts:
            continue
        findings += findings_of(path, tree.read(root, path))
    tree.report("markers", findings)


if __name__ == "__main__":
    main()
