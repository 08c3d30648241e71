"""Includes follow the ranks of the folders; third-party headers and the environment stay behind their wrappers."""

import re

import tree

# A folder includes itself and lower ranks, never an equal one. The table of docs/ARCHITECTURE.md is compared with this.
RANKS = {
    "base": 0,
    "tensor": 1,
    "kernels": 2,
    "tokenizer": 2,
    "parallel": 2,
    "constrain": 3,
    "chat": 3,
    "formats": 3,
    "attention": 3,
    "moe": 3,
    "model": 4,
    "reference": 5,
    "runtime": 5,
    "train": 5,
    "convert": 5,
    "align": 6,
    "api": 7,
    "server": 7,
    "cli": 8,
}

# Where a few sources share a library's types, a header is its wrapper: only files of its folder with this prefix may see
# it, directly or through other headers.
WRAPPER_HEADERS = {"src/lathe/server/http_asio.h": "src/lathe/server/http_"}

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')
THIRD_PARTY = re.compile(
    r"^(nlohmann|CLI|curl|openssl|editline|histedit|pcre2|zstd|toml|boost|gtest|gmock|benchmark)\b"
)
TEST_FRAMEWORK = re.compile(r"^(gtest|gmock)/")
ENVIRONMENT = re.compile(r"\b(getenv|secure_getenv|setenv|putenv|unsetenv|environ)\b")
TABLE_ROW = re.compile(r"^\|\s*`(?:src/lathe/)?(\w+)/?`\s*\|\s*(\d+)\s*\|")


def check_project_include(root, path, line, target):
    """One quoted include of a file under src/lathe."""
    parts = target.split("/")
    if parts[0] != "lathe":
        if path.stem.endswith("_test") and (root / "tests" / target).is_file():
            return None
        return f'{path}:{line}: "{target}": expected "lathe/<folder>/<file>"'
    if len(parts) == 2:  # a public header of include/lathe
        if path.parts[2] in ("api", "cli") or path.stem.endswith("_test"):
            return None
        return f'{path}:{line}: "{target}": public headers may be included by api/ and cli/ only'
    own, other = path.parts[2], parts[1]
    if other not in RANKS:
        return f'{path}:{line}: "{target}": folder {other} has no rank'
    allowed = own == other or RANKS[other] < RANKS[own]
    if path.stem.endswith("_test"):  # tests may read their data through a neighbour
        allowed = RANKS[other] <= RANKS[own]
    if not allowed:
        return f"{path}:{line}: {own} (rank {RANKS[own]}) may not include {other} (rank {RANKS[other]}): \"{target}\""
    return None


def check_wrapper_headers(includes):
    """`includes`: of each file below src/lathe what it includes from there."""
    findings = []
    for wrapper, prefix in WRAPPER_HEADERS.items():
        seen = set()
        headers = [wrapper]
        while headers:
            header = headers.pop()
            for path in [path for path, targets in includes.items() if header in targets and path not in seen]:
                seen.add(path)
                if not path.startswith(prefix):
                    findings.append(f"{path}: sees {wrapper}, as {prefix}* alone may")
                elif path.endswith(".h"):
                    headers.append(path)
    return findings


def check_sources(root):
    """All findings about files under src/lathe and include/lathe."""
    findings = []
    wrappers = {}
    includes = {}
    for path in tree.files(root, ".h", ".cpp", ".c", ".cu"):
        in_source = path.parts[:2] == ("src", "lathe") and len(path.parts) > 3
        public = path.parts[:2] == ("include", "lathe")
        if not in_source and not public:
            continue
        if in_source and path.parts[2] not in RANKS:
            findings.append(f"{path}: folder {path.parts[2]} has no rank in tests/checks/layering.py")
            continue
        is_test = path.stem.endswith("_test")
        for number, text in enumerate(tree.read(root, path).splitlines(), 1):
            if in_source and not is_test and path.as_posix() != "src/lathe/base/env.cpp":
                code = text.split("//")[0]
                if ENVIRONMENT.search(code) and '"' not in code:
                    findings.append(f"{path}:{number}: the environment is read in base/env.cpp only: {code.strip()}")
            match = INCLUDE.match(text)
            if not match:
                continue
            quoted, angled = match.groups()
            if quoted and in_source:
                includes.setdefault(path.as_posix(), set()).add(f"src/{quoted}")
                finding = check_project_include(root, path, number, quoted)
                if finding:
                    findings.append(finding)
            elif quoted and quoted.count("/") != 1:
                findings.append(f'{path}:{number}: a public header includes public headers only, found "{quoted}"')
            if THIRD_PARTY.match(angled or quoted):
                header = (angled or quoted).split("/")[0]
                if is_test and TEST_FRAMEWORK.match(angled or ""):
                    continue
                if path.suffix == ".h" and path.as_posix() not in WRAPPER_HEADERS:
                    findings.append(f"{path}:{number}: third-party header in a header: {angled or quoted}")
                elif not is_test:
                    wrappers.setdefault((angled or quoted) if header == "openssl" else header, set()).add(str(path))
    for header, users in sorted(wrappers.items()):
        if len(users) > 1:
            findings.append(f"{header}: expected one wrapper, found {', '.join(sorted(users))}")
    return findings + check_wrapper_headers(includes)


def check_document(root):
    """The table of docs/ARCHITECTURE.md must show these ranks."""
    path = root / "docs" / "ARCHITECTURE.md"
    if not path.is_file():
        return []
    shown = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        match = TABLE_ROW.match(text)
        if match:
            shown[match.group(1)] = int(match.group(2))
    findings = [
        f"docs/ARCHITECTURE.md: {folder}: expected rank {RANKS.get(folder, 'none')}, found {rank}"
        for folder, rank in sorted(shown.items())
        if RANKS.get(folder) != rank
    ]
    present = {p.parts[2] for p in tree.files(root, ".cpp") if p.parts[:2] == ("src", "lathe") and len(p.parts) > 3}
    missing = sorted(present - set(shown))
    findings += [f"docs/ARCHITECTURE.md: folder {folder} is missing in the table" for folder in missing]
    return findings


if __name__ == "__main__":
    ROOT = tree.parse_root(__doc__)
    tree.report("layering", check_sources(ROOT) + check_document(ROOT))
