"""The checks find what they are for and accept what is right: each runs on small trees made here."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent


class CheckTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lathe-checks-")
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name) / "tree"
        self.root.mkdir()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def check(self, script, *arguments):
        result = subprocess.run(
            [sys.executable, str(HERE / f"{script}.py"), "--root", str(self.root), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    def assert_finds(self, script, *parts):
        code, output = self.check(script)
        self.assertEqual(code, 1, output)
        for part in parts:
            self.assertIn(part, output)

    def assert_clean(self, script):
        code, output = self.check(script)
        self.assertEqual((code, output), (0, ""))


class Layering(CheckTest):
    def test_lower_ranks_and_the_own_folder_are_allowed(self):
        self.write("src/lathe/moe/a.cpp", '#include "lathe/moe/a.h"\n#include "lathe/kernels/k.h"\n#include <vector>\n')
        self.assert_clean("layering")

    def test_equal_and_higher_ranks_are_not(self):
        self.write("src/lathe/moe/a.cpp", '#include "lathe/attention/mla.h"\n')
        self.write("src/lathe/base/b.cpp", '  #  include "lathe/tensor/tensor.h"\n')
        self.assert_finds("layering", "moe (rank 3) may not include attention (rank 3)", "src/lathe/base/b.cpp:1: base")

    def test_a_test_may_use_a_neighbour_but_nothing_above(self):
        includes = '#include "lathe/formats/checkpoint.h"\n#include "support/golden.h"\n'
        self.write("src/lathe/attention/a_test.cpp", includes)
        self.write("tests/support/golden.h", "")
        self.assert_clean("layering")
        self.write("src/lathe/attention/b_test.cpp", '#include "lathe/model/config.h"\n')
        self.assert_finds("layering", "b_test.cpp:1: attention (rank 3) may not include model (rank 4)")

    def test_unknown_folders_and_other_include_forms(self):
        self.write("src/lathe/extra/a.cpp", "")
        self.write("src/lathe/base/a.cpp", '#include "a.h"\n#include "lathe/other/x.h"\n#include "lathe/lathe.h"\n')
        self.assert_finds(
            "layering",
            "folder extra has no rank",
            'expected "lathe/<folder>/<file>"',
            "folder other has no rank",
            "public headers may be included by api/ and cli/ only",
        )

    def test_public_headers_include_public_headers_only(self):
        self.write("include/lathe/lathe.h", '#include "lathe/base/result.h"\n')
        self.assert_finds("layering", "a public header includes public headers only")

    def test_third_party_headers_have_one_wrapper(self):
        self.write("src/lathe/base/json.cpp", "#include <nlohmann/json.hpp>\n")
        self.write("src/lathe/base/json_test.cpp", "#include <gtest/gtest.h>\n")
        self.assert_clean("layering")
        self.write("src/lathe/base/more.cpp", "#include <nlohmann/json_fwd.hpp>\n")
        self.write("src/lathe/base/json.h", "#include <nlohmann/json.hpp>\n")
        self.assert_finds("layering", "nlohmann: expected one wrapper", "json.h:1: third-party header in a header")

    def test_a_wrapper_may_be_a_header_of_few(self):
        self.write("src/lathe/server/http_asio.h", "#include <boost/asio.hpp>\n")
        self.write("src/lathe/server/http_session.h", '#include "lathe/server/http_asio.h"\n')
        self.write("src/lathe/server/http_session.cpp", '#include "lathe/server/http_session.h"\n')
        self.assert_clean("layering")
        self.write("src/lathe/server/api.cpp", '#include "lathe/server/http_session.h"\n')
        self.assert_finds("layering", "src/lathe/server/api.cpp: sees src/lathe/server/http_asio.h")

    def test_the_environment_is_read_in_one_place(self):
        self.write("src/lathe/base/env.cpp", "const char* v = getenv(name);\n")
        self.write("src/lathe/base/cpu.cpp", "// unlike getenv\n")
        self.assert_clean("layering")
        self.write("src/lathe/base/cpu.cpp", "const char* v = std::getenv(name);\n")
        self.assert_finds("layering", "cpu.cpp:1: the environment is read in base/env.cpp only")

    def test_the_document_shows_the_same_ranks(self):
        self.write("src/lathe/moe/a.cpp", "")
        self.write("docs/ARCHITECTURE.md", "| `base/` | 0 | x |\n| `model/` | 3 | x |\n")
        self.assert_finds("layering", "model: expected rank 4, found 3", "folder moe is missing")


class FileSize(CheckTest):
    def test_limits(self):
        self.write("src/a.cpp", "x\n" * 600)
        self.write("src/table.h", "// Generated by tools/make_table.py\n" + "x\n" * 900)
        self.assert_clean("file_size")
        self.write("src/b.cpp", "x\n" * 601)
        code, output = self.check("file_size")
        self.assertEqual(code, 0)
        self.assertIn("warning: src/b.cpp: expected at most 600 lines, found 601", output)
        self.write("src/c.py", "x\n" * 801)
        self.assert_finds("file_size", "src/c.py: expected at most 600 lines, found 801")


class Markers(CheckTest):
    def test_prose_and_numbered_todos_are_fine(self):
        self.write(
            "src/a.cpp",
            "// TODO(#12): faster\n// y = w * x; the sum runs upward.\n//   score = q . k\n// return is not free\nint a;\n"
            "// Example:\n//   LATHE_TRY(const Json json, read(path));\n",
        )
        self.write("tools/a.py", "# import order matters here\n")
        self.assert_clean("markers")

    def test_unfinished_disabled_and_dead_code(self):
        for number, line in enumerate(
            [
                "// TODO: later",
                "// FIXME(me): x",
                "TEST(A, DISABLED_B) {}",
                "  // return x;",
                "// foo->bar(1, 2);",
                "// const int x = 3;",
                "// if (a) {",
                'const char* p = "/root/x";',
            ]
        ):
            self.write(f"src/a{number}.cpp", line + "\n")
        self.write("tools/a.py", "# import os\n")
        code, output = self.check("markers")
        self.assertEqual(code, 1)
        self.assertIn("9 finding(s)", output)


class DocComments(CheckTest):
    DOCUMENTED = """// What this file is for.
#pragma once
namespace lathe {
int first(int a);

// A pair.
struct Pair {
  int a;
  int sum() const { return a; }
};

// Sums. Overloads follow.
int sum(int a);
int sum(long a);

int sum(char a);
namespace detail {
int hidden();
}

class Owner {  // owns things
 public:
  Owner();
  ~Owner();
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = default;

  // Opens.
  static int open(int a = {}, char c = '{');
  void (*callback)(int) = nullptr;

 private:
  int private_work();
};
}  // namespace lathe
"""

    def test_documented_headers_pass(self):
        self.write("src/lathe/base/a.h", self.DOCUMENTED)
        self.assert_clean("doc_comments")

    def test_missing_comments_are_found(self):
        text = self.DOCUMENTED
        for comment in ("// A pair.\n", "// Sums. Overloads follow.\n", "  // Opens.\n"):
            self.assertIn(comment, text)
            text = text.replace(comment, "")
        text += '__attribute__((visibility("default"))) int exported();\n'
        self.write("include/lathe/a.h", text)
        self.assert_finds("doc_comments", "struct Pair", "function sum", "function open", "function exported", "6 finding(s)")

    def test_the_leading_comment_covers_the_class_the_file_is_named_after(self):
        text = "// The latent cache.\n\nstruct Key {};  // a\n\nclass LatentCache {\n  enum Kind { kA };\n};\n"
        self.write("src/lathe/runtime/latent_cache.h", text)
        self.assert_clean("doc_comments")
        self.write("src/lathe/runtime/other.h", text)
        self.assert_finds("doc_comments", "other.h:5: class LatentCache", "1 finding(s)")

    def test_other_headers_do_not_count(self):
        self.write("tests/support/a.h", "int f();\n")
        self.write("src/lathe/kernels/ops-inl.h", "int f();\n")
        self.assert_clean("doc_comments")


class DocsLinks(CheckTest):
    def test_links_and_paths_that_exist(self):
        self.write("src/lathe/base/str.h", "")
        self.write("docs/b.md", "# One `two` (three)\n\n# Again\n# Again\n")
        self.write(
            "docs/a.md",
            "[x](b.md#one-two-three) [y](b.md#again-1) [z](../src/lathe/base/str.h) [w](https://e.org/x)\n"
            "`src/lathe/base/str.h` `src/lathe/base/str.h:12` `src/lathe/*/str.h` `src/lathe/<folder>/x.h`\n"
            "`[no](link)`\n\n```\n[no](link)\n```\n",
        )
        self.assert_clean("docs_links")

    def test_links_and_paths_that_do_not(self):
        self.write("docs/b.md", "# One\n")
        self.write("docs/a.md", "[x](c.md) [y](b.md#two) [z](../../outside.md) `tests/none.cpp` [s](#here)\n")
        self.assert_finds(
            "docs_links",
            "link to nothing: c.md",
            "no heading #two in b.md",
            "link leaves the repository",
            "names a file that does not exist: tests/none.cpp",
            "no heading #here",
            "5 finding(s)",
        )


class DocsShell(CheckTest):
    def run_blocks(self, text):
        self.write("README.md", text)
        self.write("data.txt", "hello\n")
        (self.root / "build").mkdir(exist_ok=True)
        return self.check("docs_shell", "--build", str(self.root / "build"))

    def test_blocks_run_in_a_folder_of_their_own(self):
        code, output = self.run_blocks(
            "```sh run\ncat data.txt | grep hello >out.txt\n```\n```sh run\ntest -s out.txt\ntest -d build\n```\n"
            "```sh norun\nexit 3\n```\n```cpp\n```\n"
        )
        self.assertEqual(code, 0, output)
        self.assertIn("2 block(s) executed", output)
        self.assertFalse((self.root / "out.txt").exists())

    def test_failures_and_undecided_blocks(self):
        code, output = self.run_blocks(
            "```sh run\necho before\nfalse | cat\necho after\n```\n\n```sh\ntrue\n```\n\n```bash\n```\n"
        )
        self.assertEqual(code, 1)
        self.assertIn("README.md:1: exit code 1", output)
        self.assertIn("before", output)
        self.assertNotIn("after", output)
        self.assertIn("README.md:7: a shell block says", output)
        self.assertIn("README.md:11: a shell block says", output)


if __name__ == "__main__":
    unittest.main()
