"""Every function and test that docs/paper-map.md and the trap table of README.md name exists, and nothing is left out.
Tests that other documents name exist too.

A row of the map is `| Eq. 9, 41 | what | functions | tests |`: functions are code spans followed by the file that holds
them (`f`, `g` in `path`), tests are code spans `Suite.Name` of GoogleTest. Cells say `not yet` for what is missing and
`none` where there is nothing to compute. A row of the trap table is `| T1 | what goes wrong | tests |`.
"""

import re

import tree

MAP = "docs/paper-map.md"
TRAPS = "README.md"
EQUATIONS = "src/lathe/reference/equations.h"
COVERED = [f"Eq. {n}" for n in (*range(1, 23), *range(37, 48))] + ["Table 1", "Figure 2", "Figure 3"]
LISTED = [f"Eq. {n}" for n in range(23, 37)]
TRAP_NUMBERS = range(1, 24)
WITHOUT = ("not yet", "none")

SPAN = re.compile(r"`([^`]+)`")
ITEM = re.compile(r"^(Eq\.|Table|Figure|Section)\s+([\d., -]+)$")
TEST_NAME = re.compile(r"^[A-Za-z]\w*\.[A-Za-z]\w*$")
CAPITAL_NAME = re.compile(r"^[A-Z]\w*\.[A-Z]\w*$")
TEST_MACRO = re.compile(r"^(?:TEST|TEST_F|TEST_P|TYPED_TEST|TYPED_TEST_P)\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.M)
EQUATION_FUNCTION = re.compile(r"\b(eq_(\d+)_\w+)\(")


def cells(line):
    """The cells of a table row, without the outer bars; empty for other lines."""
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def items_of(cell):
    """"Eq. 9, 41" -> ["Eq. 9", "Eq. 41"], "Eq. 23-25" -> three items; empty for a cell of another kind."""
    match = ITEM.match(cell)
    if not match:
        return []
    kind, numbers = match.groups()
    found = []
    for part in numbers.split(","):
        first, _, last = part.strip().partition("-")
        if last and kind != "Section":
            found += [f"{kind} {n}" for n in range(int(first), int(last) + 1)]
        else:
            found.append(f"{kind} {part.strip()}")
    return found


def known_tests(root):
    """Suite.Name of every GoogleTest in the tree."""
    names = set()
    for path in tree.files(root, ".cpp"):
        if path.stem.endswith("_test"):
            names.update(f"{suite}.{name}" for suite, name in TEST_MACRO.findall(tree.read(root, path)))
    return names


def check_functions(root, where, cell):
    """Findings about the cell of functions, and the functions it names."""
    findings, pending, named = [], [], []
    for span in SPAN.findall(cell):
        if "/" not in span:
            pending.append(span)
            continue
        text = tree.read(root, span) if (root / span).is_file() else None
        if text is None:
            findings.append(f"{where}: names a file that does not exist: {span}")
        elif not pending:
            findings.append(f"{where}: {span}: expected the functions before the file")
        else:
            missing = [name for name in pending if not re.search(rf"\b{re.escape(name.split('::')[-1])}\b", text)]
            findings += [f"{where}: {span} does not contain {name}" for name in missing]
        named += pending
        pending = []
    findings += [f"{where}: {name}: expected a file after it" for name in pending]
    return findings, named


def check_tests(where, cell, tests):
    """Findings about the cell of tests."""
    spans = SPAN.findall(cell)
    findings = [f"{where}: expected Suite.Name, found {s}" for s in spans if not TEST_NAME.match(s)]
    findings += [f"{where}: no such test: {s}" for s in spans if TEST_NAME.match(s) and s not in tests]
    if not spans:
        findings.append(f"{where}: expected at least one test")
    return findings


def check_map(root, tests):
    """All findings about docs/paper-map.md."""
    findings, covered, listed, functions = [], set(), set(), {}
    for number, line in enumerate(tree.read(root, MAP).splitlines(), 1):
        row = cells(line)
        items = items_of(row[0]) if row else []
        if not items:
            continue
        where = f"{MAP}:{number}"
        if len(row) != 4:
            findings.append(f"{where}: expected 4 cells, found {len(row)}")
            continue
        findings += [f"{where}: {item} has a row already" for item in items if item in listed]
        listed.update(items)
        if row[2] in WITHOUT or row[3] in WITHOUT:
            if row[2] != row[3]:
                findings.append(f"{where}: expected {' or '.join(WITHOUT)} in both cells or in none")
            continue
        problems, named = check_functions(root, where, row[2])
        if not named and not problems:
            problems.append(f"{where}: expected at least one function")
        problems += check_tests(where, row[3], tests)
        findings += problems
        covered.update(items)
        for item in items:
            functions.setdefault(item, set()).update(named)
    findings += [f"{MAP}: {item} has no row" for item in COVERED + LISTED if item not in listed]
    findings += [f"{MAP}: {item}: expected functions and tests" for item in COVERED if item in listed - covered]
    if (root / EQUATIONS).is_file():
        for name, number in dict(EQUATION_FUNCTION.findall(tree.read(root, EQUATIONS))).items():
            if name not in functions.get(f"Eq. {number}", set()):
                findings.append(f"{MAP}: Eq. {number}: does not name {name} of {EQUATIONS}")
    return findings


def check_traps(root, tests):
    """All findings about the trap table of the README."""
    findings, seen = [], set()
    for number, line in enumerate(tree.read(root, TRAPS).splitlines(), 1):
        row = cells(line)
        if not row or not re.match(r"^T\d+$", row[0]):
            continue
        where = f"{TRAPS}:{number}"
        if row[0] in seen:
            findings.append(f"{where}: {row[0]} has a row already")
        seen.add(row[0])
        if not row[-1].startswith(WITHOUT[0]):
            findings += check_tests(where, row[-1], tests)
    return findings + [f"{TRAPS}: T{n} has no row" for n in TRAP_NUMBERS if f"T{n}" not in seen]


def check_prose(root, tests):
    """Findings about tests that any document names outside the rows of the two tables."""
    findings = []
    for path in tree.files(root, ".md"):
        for number, line in enumerate(tree.read(root, path).splitlines(), 1):
            row = cells(line)
            if row and (items_of(row[0]) or re.match(r"^T\d+$", row[0])):
                continue
            names = [s for s in SPAN.findall(line) if CAPITAL_NAME.match(s) and s not in tests]
            findings += [f"{path}:{number}: no such test: {name}" for name in names]
    return findings


def main():
    root = tree.parse_root(__doc__)
    missing = [name for name in (MAP, TRAPS) if not (root / name).is_file()]
    if missing:
        tree.report("paper_map", [f"{name}: not there" for name in missing])
    tests = known_tests(root)
    tree.report("paper_map", check_map(root, tests) + check_traps(root, tests) + check_prose(root, tests))


if __name__ == "__main__":
    main()
