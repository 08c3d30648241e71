"""Every relative link, anchor and file path in the documentation leads somewhere."""

import re
import urllib.parse

import tree

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)")
CODE_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TOP_FOLDERS = ("src", "include", "tests", "docs", "tools", "cmake", "bench", "examples", "models", ".ci")
PATH = re.compile(r"^(?:%s)/[\w./+*-]*$" % "|".join(re.escape(f) for f in TOP_FOLDERS))
FENCE = re.compile(r"^\s*(```+|~~~+)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")


def prose(text):
    """(line number, line) outside fenced blocks."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if match and fence is None:
            fence = match.group(1)
        elif match and match.group(1).startswith(fence):
            fence = None
        elif fence is None:
            yield number, line


def anchors(text):
    """The anchors GitHub makes from the headings."""
    found = set()
    for _, line in prose(text):
        match = HEADING.match(line)
        if not match:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1)).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        unique, count = slug, 0
        while unique in found:
            count += 1
            unique = f"{slug}-{count}"
        found.add(unique)
    return found


def check_link(root, path, number, target):
    """A finding about one link, or None."""
    if re.match(r"^[a-z][a-z0-9+.-]*:", target):
        return None
    name, _, anchor = urllib.parse.unquote(target).partition("#")
    if not name:
        full = root / path
    elif name.startswith("/"):
        full = root / name.lstrip("/")
    else:
        full = (root / path).parent / name
    if not full.resolve().is_relative_to(root):
        return f"{path}:{number}: link leaves the repository: {target}"
    if not full.exists():
        return f"{path}:{number}: link to nothing: {target}"
    if anchor and full.suffix == ".md" and anchor not in anchors(full.read_text(encoding="utf-8")):
        return f"{path}:{number}: no heading #{anchor} in {name or path}"
    return None


def main():
    root = tree.parse_root(__doc__)
    findings = []
    for path in tree.files(root, ".md"):
        for number, line in prose(tree.read(root, path)):
            without_code = CODE_SPAN.sub("", line)
            findings += filter(None, (check_link(root, path, number, t) for t in LINK.findall(without_code)))
            for span in CODE_SPAN.findall(line):
                word = span.split(":")[0].rstrip("/")
                if PATH.match(word) and not (any(root.glob(word)) if "*" in word else (root / word).exists()):
                    findings.append(f"{path}:{number}: names a file that does not exist: {span}")
    tree.report("docs_links", findings)


if __name__ == "__main__":
    main()
