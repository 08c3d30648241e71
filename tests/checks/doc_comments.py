"""Every public class and function in a header has a comment.

A heuristic over the text, not a parser of C++. A declaration counts as documented when a comment stands above it or on
its own lines, when it belongs to a group without blank lines whose beginning is documented (a class's comment covers
the group under its opening lines, a file's leading comment its first declaration and the class it is named after), or
when an overload above it is; for a struct or enum a comment at its first members will do. Exempt: constructors,
destructors, operators, overrides, defaulted and deleted functions, types inside a class, and bodies of up to three lines
inside a class.
"""

import re

import tree

CLASS = re.compile(r"\b(class|struct|union)\s+(?:\w+\s+)*?([A-Z]\w*)[^()=]*$")
FUNCTION_NAME = re.compile(r"([~\w]+)\s*\($")
HIDDEN_NAMESPACE = re.compile(r"\bnamespace\s*(?:\w+::)*(detail|internal|)\s*$")
ANNOTATION = re.compile(
    r"\b(alignas|requires|noexcept|decltype)\s*(\((?:[^()]|\([^()]*\))*\))+|\[\[[^\]]*\]\]"
    r"|\b__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)"
)
CLASS_PREFIX = re.compile(r"\b(alignas|requires)\s*\([^()]*\)|^.*>\s*(?=class|struct|union)", re.S)
NOT_FUNCTIONS = re.compile(r"^\s*(using|typedef|friend|static_assert|return|goto|namespace)\b")


def split_comments(text):
    """(code, lines): the text with comments, literals and directives blanked; the numbers of lines with a comment."""
    pattern = re.compile(
        r'(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<raw>R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)")|(?P<text>"(?:\\.|[^"\\\n])*")'
        r"|(?P<char>(?<!\w)'(?:\\.|[^'\\\n])+')|(?P<directive>^[ \t]*#(?:\\\n|[^\n])*)",
        re.S | re.M,
    )
    comment_lines = set()

    def blank(match):
        if match.group("comment"):
            first = text.count("\n", 0, match.start()) + 1
            comment_lines.update(range(first, first + match.group().count("\n") + 1))
        return re.sub(r"[^\n]", " ", match.group())

    return pattern.sub(blank, text), comment_lines


class Scanner:
    """Walks the code of one header and collects public declarations as (line, last line, name)."""

    def __init__(self, code):
        self.code = code
        self.scopes = []  # [kind, access, name]; kind: namespace, class, body
        self.found = []
        self.start = 0  # offset of the current declaration

    def line(self, offset):
        return self.code.count("\n", 0, offset) + 1

    def public(self):
        return all(kind == "namespace" or (kind == "class" and access == "public") for kind, access, _ in self.scopes)

    def declaration(self, end):
        """(text, offset of its first character) of what was read since the last boundary."""
        text = self.code[self.start : end]
        return text.strip(), self.start + len(text) - len(text.lstrip())

    def at_namespace_scope(self):
        return all(kind == "namespace" for kind, _, _ in self.scopes)

    def add(self, name, begin, end):
        self.found.append((self.line(begin), self.line(end), name))

    def function(self, text, begin, end, defined):
        """Records a public function unless it is exempt."""
        bare = ANNOTATION.sub("", text)
        head = bare.split("(", 1)[0]
        match = FUNCTION_NAME.search(head + "(")
        is_pointer = re.match(r"\s*\*", bare.partition("(")[2]) is not None
        if not match or is_pointer or NOT_FUNCTIONS.match(bare) or "=" in head or "operator" in head:
            return
        name = match.group(1)
        owner = self.scopes[-1][2] if self.scopes and self.scopes[-1][0] == "class" else None
        if name.startswith("~") or name == owner or re.search(r"\boverride\b|=\s*(default|delete)\s*$", bare):
            return
        if defined and owner and self.line(end) - self.line(begin) < 3:
            return
        self.add(f"function {name}", begin, end)

    def open_brace(self, at):
        text, begin = self.declaration(at)
        if re.search(r"\bnamespace\b[\w\s:]*$", text) or text == "extern":
            hidden = HIDDEN_NAMESPACE.search(text) is not None
            self.scopes.append(["body" if hidden else "namespace", "public", ""])
        elif re.search(r"\benum\b", text):
            if self.at_namespace_scope():
                self.add("enum " + text.split("{")[0].split(":")[0].split()[-1], begin, at)
            self.scopes.append(["body", "", ""])
        elif CLASS.search(CLASS_PREFIX.sub("", text)):
            kind, name = CLASS.search(CLASS_PREFIX.sub("", text)).groups()
            if self.at_namespace_scope():
                self.add(f"{kind} {name}", begin, begin + len(text.split("{")[0]))
            self.scopes.append(["class", "private" if kind == "class" else "public", name])
        else:
            if "(" in text and self.public():
                self.function(text, begin, self.matching(at), defined=True)
            self.scopes.append(["body", "", ""])
        self.start = at + 1

    def matching(self, at):
        """Offset of the brace that closes the one at `at`."""
        depth = 0
        for offset in range(at, len(self.code)):
            depth += {"{": 1, "}": -1}.get(self.code[offset], 0)
            if depth == 0:
                return offset
        return len(self.code)

    def scan(self):
        parentheses = 0
        skip_to = 0
        for at, char in enumerate(self.code):
            if at < skip_to:
                continue
            if char in "()":
                parentheses += 1 if char == "(" else -1
            elif parentheses > 0:
                if char == "{":
                    skip_to = self.matching(at) + 1
            elif char == "{":
                self.open_brace(at)
            elif char == "}":
                if self.scopes:
                    self.scopes.pop()
                self.start = at + 1
            elif char == ";":
                text, begin = self.declaration(at)
                if "(" in text and self.public():
                    self.function(text, begin, at, defined=False)
                self.start = at + 1
            elif char == ":" and self.scopes and self.scopes[-1][0] == "class":
                word = self.declaration(at)[0]
                if word in ("public", "private", "protected"):
                    self.scopes[-1][1] = word
                    self.start = at + 1
        return self.found


def undocumented(text, stem):
    """(line, name) of every public declaration without a comment; stem: the file's name without its ending."""
    code, comments = split_comments(text)
    texts = text.splitlines()
    comments -= {n for n, line in enumerate(texts, 1) if line.lstrip().startswith("}")}  # they name what ends there
    declarations = Scanner(code).scan()
    first = min((begin for begin, _, _ in declarations), default=0)
    documented = set()
    for begin, end, name in declarations:
        above = begin - 1
        while above > 0 and texts[above - 1].strip() and above not in comments:
            above -= 1
        last = end + 2 if name.startswith(("struct", "enum")) else min(end, begin + 12)
        on_its_lines = any(line in comments for line in range(begin, last + 1))
        leading = begin == first or name.split()[-1].lower() == stem.replace("_", "")
        if on_its_lines or above in comments or (leading and 1 in comments):
            documented.add(name)
        elif name not in documented:
            yield begin, name


def main():
    root = tree.parse_root(__doc__)
    findings = []
    for path in tree.files(root, ".h"):
        public = path.parts[:2] == ("include", "lathe")
        module = path.parts[:2] == ("src", "lathe") and not path.stem.endswith("-inl")
        if public or module:
            for line, name in undocumented(tree.read(root, path), path.stem):
                findings.append(f"{path}:{line}: {name} has no comment")
    tree.report("doc_comments", findings)


if __name__ == "__main__":
    main()
