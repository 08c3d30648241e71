#include "lathe/base/str.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lathe {
namespace {

TEST(Str, JoinsValuesOfEveryKind) {
  EXPECT_EQ(str("a", std::string("b"), std::string_view("c"), 'd', 1, -2, uint64_t{3}, true, 0.5), "abcd1-23true0.5");
  EXPECT_EQ(str(std::vector<int64_t>{32768, 512}), "[32768, 512]");
  EXPECT_EQ(str(std::vector<int>{}), "[]");
  EXPECT_EQ(str(std::filesystem::path("/a b")), "/a b");
  EXPECT_EQ(str(), "");
}

TEST(Str, NumbersPrintTheShortestFormThatReadsBack) {
  EXPECT_EQ(str(0.1), "0.1");
  EXPECT_EQ(str(0.1f), "0.1");
  EXPECT_EQ(str(1e300), "1e+300");
  EXPECT_EQ(str(std::numeric_limits<int64_t>::min()), "-9223372036854775808");
}

TEST(Fixed, RoundsAndKeepsDecimals) {
  EXPECT_EQ(fixed(3.14159, 2), "3.14");
  EXPECT_EQ(fixed(2.0, 3), "2.000");
  EXPECT_EQ(fixed(-0.5, 0), "-0");
  EXPECT_EQ(fixed(1e22, 1), "10000000000000000000000.0");
}

TEST(Fixed, LargestDoubleWithManyDecimalsFits) {
  EXPECT_EQ(fixed(-std::numeric_limits<double>::max(), 100).size(), 1u + 309 + 1 + 100);
  EXPECT_EQ(fixed(1.0, -5), "1");
}

TEST(Fixed, NamesWhatIsNotANumber) {
  EXPECT_EQ(fixed(std::nan(""), 2), "nan");
  EXPECT_EQ(fixed(std::numeric_limits<double>::infinity(), 2), "inf");
  EXPECT_EQ(fixed(-std::numeric_limits<double>::infinity(), 2), "-inf");
}

TEST(WithCommas, GroupsByThree) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(34560), "34,560");
  EXPECT_EQ(with_commas(-100), "-100");
  EXPECT_EQ(with_commas(-123456), "-123,456");
  EXPECT_EQ(with_commas(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(HumanBytes, PicksTheUnit) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(uint64_t{5} << 30), "5.00 GiB");
  EXPECT_EQ(human_bytes((uint64_t{1} << 20) - 1), "1.00 MiB");  // never "1024.00 KiB"
  EXPECT_EQ(human_bytes(std::numeric_limits<uint64_t>::max()), "16.00 EiB");
}

TEST(Quoted, EscapesWhatWouldDisturbATerminal) {
  EXPECT_EQ(quoted(std::string_view("plain")), "\"plain\"");
  EXPECT_EQ(quoted("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(quoted(std::string_view("\x1b[2J\n\0x", 7)), R"("\x1b[2J\x0a\x00x")");
  EXPECT_EQ(quoted("\x7f\xc2\x9b"), R"("\x7f\xc2\x9b")");
  EXPECT_EQ(quoted("\xff\xe2\x82"), R"("\xff\xe2\x82")");
  EXPECT_EQ(quoted("a\xe2\x80\xae\xe2\x80\xa8"),
            R"("a\xe2\x80\xae\xe2\x80\xa8")");  // direction override, line separator
  EXPECT_EQ(quoted("größe €"), "\"größe €\"");
}

TEST(Quoted, CutsAtACharacter) {
  EXPECT_EQ(quoted("abcdef", 6), "\"abcdef\"");
  EXPECT_EQ(quoted("abcdefg", 6), "\"abcdef\"...");
  EXPECT_EQ(quoted("ab€", 4), "\"ab\"...");
  EXPECT_EQ(quoted("x", 0), "\"\"...");
  EXPECT_EQ(quoted("", 0), "\"\"");
}

TEST(Quoted, IsOursForEveryStringType) {
  std::string text = "t";
  const std::string constant = "t";
  EXPECT_EQ(quoted(text), "\"t\"");
  EXPECT_EQ(quoted(constant), "\"t\"");
  EXPECT_EQ(quoted(std::string("t")), "\"t\"");
  EXPECT_EQ(quoted(std::string_view("t")), "\"t\"");
}

TEST(ParseInt, TakesDigitsOnly) {
  int64_t value = 0;
  EXPECT_TRUE(parse_int("42", value));
  EXPECT_EQ(value, 42);
  EXPECT_TRUE(parse_int("-9223372036854775808", value));
  EXPECT_EQ(value, std::numeric_limits<int64_t>::min());
  value = 7;
  for (const char* bad : {"", "-", "+1", " 1", "1 ", "1.0", "0x10", "9223372036854775808", "--1", "1e3"}) {
    EXPECT_FALSE(parse_int(bad, value)) << bad;
  }
  EXPECT_FALSE(parse_int(std::string_view("1\0", 2), value));
  EXPECT_EQ(value, 7) << "a failure changes nothing";
}

TEST(ParseDouble, TakesFiniteDecimals) {
  double value = 0.0;
  EXPECT_TRUE(parse_double("-2.5", value));
  EXPECT_EQ(value, -2.5);
  EXPECT_TRUE(parse_double("1e-3", value));
  EXPECT_EQ(value, 1e-3);
  EXPECT_TRUE(parse_double("1", value));
  EXPECT_EQ(value, 1.0);
  value = 7.0;
  for (const char* bad : {"", "-", "+1", "inf", "nan", "-inf", "1e400", "0x1p3", "1 ", " 1", "1,5", "1e", "."}) {
    EXPECT_FALSE(parse_double(bad, value)) << bad;
  }
  EXPECT_EQ(value, 7.0) << "a failure changes nothing";
}

}  // namespace
}  // namespace lathe
