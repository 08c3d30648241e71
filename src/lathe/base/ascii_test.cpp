#include "lathe/base/ascii.h"

#include <gtest/gtest.h>

#include <string_view>

namespace lathe {
namespace {

TEST(Ascii, ClassesOfEveryByte) {
  constexpr std::string_view kDigits = "0123456789";
  constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz";
  constexpr std::string_view kUpper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool digit = kDigits.find(c) != std::string_view::npos;
    const size_t upper = kUpper.find(c);
    const bool letter = upper != std::string_view::npos || kLower.find(c) != std::string_view::npos;
    EXPECT_EQ(is_ascii_digit(c), digit) << byte;
    EXPECT_EQ(is_ascii_letter(c), letter) << byte;
    EXPECT_EQ(is_ascii_alnum(c), digit || letter) << byte;
    EXPECT_EQ(ascii_lower(c), upper == std::string_view::npos ? c : kLower[upper]) << byte;
  }
}

TEST(Ascii, LowerCaseOfATextKeepsOtherLetters) {
  EXPECT_EQ(ascii_lowered("X-Api_KEY \xc3\x84Z"), "x-api_key \xc3\x84z");
  EXPECT_EQ(ascii_lowered(""), "");
}

TEST(Ascii, HexadecimalDigits) {
  constexpr std::string_view kSmall = "0123456789abcdef";
  constexpr std::string_view kLarge = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const size_t at = kSmall.find(c) != std::string_view::npos ? kSmall.find(c) : kLarge.find(c);
    EXPECT_EQ(hex_digit_value(c), at == std::string_view::npos ? -1 : static_cast<int>(at)) << byte;
  }
}

}  // namespace
}  // namespace lathe
