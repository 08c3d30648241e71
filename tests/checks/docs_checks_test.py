"""The checks of the documentation against the program and the tests find what they are for; see checks_test.py."""

import unittest

import paper_map
from checks_test import CheckTest

PROGRAM = """#!/bin/sh
case "$*" in
--help) printf 'Options:\\n  -h,--help  Help\\n\\nSubcommands:\\n  run     Runs\\n  eval    Judges\\n' ;;
'run --help') printf 'Options:\\n  -h,--help  Help\\n  -n,--max-tokens INT (Env:LATHE_MAX_TOKENS)\\n' ;
              printf '                                  like --not-an-option\\n  --raw (Env:LATHE_RAW)  See --x\\n' ;;
'eval --help') printf 'Subcommands:\\n  logits    Writes\\n' ;;
'eval logits --help') printf '  --out TEXT REQUIRED (Env:LATHE_OUT)\\n' ;;
esac
"""
PAGE = """# CLI
## Common options
| `-n`, `--max-tokens` | like `--raw` |
## lathe run
Takes [common options](#common-options) and, unlike `--out`:
| `--raw` | not `--out` |
## lathe eval logits
| `--out` | file |
"""


class PaperMap(CheckTest):
    def rows(self):
        """A map and a trap table that are complete."""
        self.write("src/a/f.h", "int fast(int);\nstruct S { int method(); };\n")
        self.write("src/a/f_test.cpp", "TEST(Suite, Name) {}\nTEST_P(\n    OnAll,\n    Works) {}\n")
        fine = "| what | `fast`, `S::method` in `src/a/f.h` | `Suite.Name`, `OnAll.Works` |"
        items = ["Eq. 1-8", "Eq. 9, 41", "Eq. 10-22", "Eq. 37-40", "Eq. 42-47", "Table 1", "Figure 2", "Figure 3"]
        return [f"| {item} {fine}" for item in items] + [
            "| Eq. 23-36 | losses | not yet | not yet |",
            "| Section 2.2.4 | dropping | not yet | not yet |",
            "| Table 2 | scores | none | none |",
        ]

    def write_all(self, rows, traps=None):
        self.write("docs/paper-map.md", "| Item | What | Functions | Tests |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
        default = [f"| T{n} | wrong | `Suite.Name` |" for n in range(1, 23)] + ["| T23 | wrong | not yet: no file |"]
        self.write("README.md", "\n".join(default if traps is None else traps) + "\n")

    def test_complete_maps(self):
        self.write_all(self.rows())
        self.assert_clean("paper_map")

    def test_names_that_do_not_exist(self):
        rows = self.rows()
        rows[0] = rows[0].replace("`fast`", "`slow`").replace("Suite.Name", "Suite.Other")
        rows[1] = rows[1].replace("f.h", "g.h")
        self.write_all(rows)
        self.assert_finds(
            "paper_map",
            "docs/paper-map.md:3: src/a/f.h does not contain slow",
            "docs/paper-map.md:3: no such test: Suite.Other",
            "docs/paper-map.md:4: names a file that does not exist: src/a/g.h",
            "3 finding(s)",
        )

    def test_items_left_out_doubled_or_empty(self):
        rows = self.rows()
        rows[0] = "| Eq. 1-7 | what | not yet | not yet |"
        rows[1] = "| Eq. 9, 41, 42 | what | `fast` | none |"
        rows[5] = "| Table 1 | what | `fast` | `Suite.Name` |"
        rows[6] = "| Figure 2 | what | `fast` in `src/a/f.h` | |"
        self.write_all(rows)
        self.assert_finds(
            "paper_map",
            "Eq. 8 has no row",
            "Eq. 1: expected functions and tests",
            "docs/paper-map.md:4: expected not yet or none in both cells or in none",
            "docs/paper-map.md:7: Eq. 42 has a row already",
            "docs/paper-map.md:8: fast: expected a file after it",
            "docs/paper-map.md:9: expected at least one test",
        )

    def test_every_equation_function_has_its_row(self):
        self.write("src/lathe/reference/equations.h", "Vec eq_7_head_output(Vec q);\n")
        self.write_all(self.rows())
        self.assert_finds("paper_map", "Eq. 7: does not name eq_7_head_output")

    def test_traps(self):
        self.write_all(self.rows(), [f"| T{n} | wrong | `Suite.Gone` |" for n in (1, 1, *range(3, 24))])
        self.assert_finds("paper_map", "README.md:2: T1 has a row already", "T2 has no row", "no such test: Suite.Gone")

    def test_names_in_prose(self):
        self.write_all(self.rows())
        self.write("docs/other.md", "See `Suite.Name` and `lathe.h`.\n\n| x | `Suite.Gone` |\n")
        self.assert_finds("paper_map", "docs/other.md:3: no such test: Suite.Gone", "1 finding(s)")

    def test_documents_must_be_there(self):
        self.assert_finds("paper_map", "docs/paper-map.md: not there", "README.md: not there")

    def test_items(self):
        self.assertEqual(paper_map.items_of("Eq. 9, 41-43"), ["Eq. 9", "Eq. 41", "Eq. 42", "Eq. 43"])
        self.assertEqual(paper_map.items_of("Section 3.1.2"), ["Section 3.1.2"])
        self.assertEqual(paper_map.items_of("Item"), [])


class DocsCli(CheckTest):
    def compare(self, page):
        self.write("docs/cli.md", page)
        self.write("lathe", PROGRAM)
        (self.root / "lathe").chmod(0o755)
        return self.check("docs_cli", "--program", str(self.root / "lathe"))

    def test_pages_that_fit(self):
        self.assertEqual(self.compare(PAGE), (0, ""))

    def test_options_and_commands_on_one_side_only(self):
        page = PAGE.replace("| `--raw` |", "| `--rare` |").replace("## lathe eval logits", "## lathe eval loss")
        code, output = self.compare(page)
        self.assertEqual(code, 1)
        for part in (
            "lathe run: --raw is missing",
            "lathe run: the program has no --rare",
            "expected a section 'lathe eval logits', found none",
            "the program has no 'lathe eval loss'",
            "4 finding(s)",
        ):
            self.assertIn(part, output)


if __name__ == "__main__":
    unittest.main()
