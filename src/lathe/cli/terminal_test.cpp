#include "lathe/cli/terminal.h"

#include <gtest/gtest.h>

namespace lathe::cli {
namespace {

TEST(Neutralised, TextStaysAsItIs) {
  EXPECT_EQ(neutralised("plain, é, 中文, 😀\n\ttab"), "plain, é, 中文, 😀\n\ttab");
  EXPECT_EQ(neutralised(""), "");
}

TEST(Neutralised, ControlCharactersBecomeVisible) {
  EXPECT_EQ(neutralised("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(neutralised("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
  EXPECT_EQ(neutralised("a\rb\bc\x7f"), "a\\x0db\\x08c\\x7f");
  EXPECT_EQ(neutralised(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(neutralised("\xc2\x9b"
                        "31m"),
            "\\x9b31m");  // U+009B is the one-character form of ESC [
}

TEST(Neutralised, BrokenUtf8IsReplaced) {
  EXPECT_EQ(neutralised("a\x9b\xff"
                        "b"),
            "a\uFFFD\uFFFDb");
}

TEST(Dim, OnlyWhereStyled) {
  EXPECT_EQ(dim("x", false), "x");
  EXPECT_EQ(dim("x", true), "\x1b[2mx\x1b[0m");
}

TEST(CutToWidth, CountsCharacters) {
  EXPECT_EQ(cut_to_width("abcdef", 6), "abcdef");
  EXPECT_EQ(cut_to_width("abcdefg", 6), "abc...");
  EXPECT_EQ(cut_to_width("ééééééé", 6), "ééé...");
  EXPECT_EQ(cut_to_width("abcdef", 3), "...");
  EXPECT_EQ(cut_to_width("abcdef", 2), "..");
  EXPECT_EQ(cut_to_width("abcdef", 0), "");
  EXPECT_EQ(cut_to_width("", 5), "");
}

}  // namespace
}  // namespace lathe::cli
