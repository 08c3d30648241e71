#include "lathe/base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace lathe {
namespace {

Result<int> positive(int value) {
  if (value > 0) return value;
  return Error{Errc::kInvalidArgument, str("expected a positive number, found ", value)};
}

Status check_positive(int value) {
  LATHE_TRY(positive(value));
  return {};
}

Result<int> sum(int a, int b) {
  LATHE_TRY(const int x, positive(a));
  LATHE_TRY(const int y, positive(b));
  LATHE_TRY(check_positive(x + y));
  return x + y;
}

TEST(Result, CarriesTheValue) {
  const Result<int> result = sum(2, 3);
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(static_cast<bool>(result));
  EXPECT_EQ(*result, 5);
}

TEST(Result, TryReturnsTheFirstErrorUnchanged) {
  const Result<int> result = sum(2, -3);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(result.error().message, "expected a positive number, found -3");
}

TEST(Result, StatusHoldsAnErrorOrNothing) {
  EXPECT_TRUE(check_positive(1));
  const Status status = check_positive(0);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "expected a positive number, found 0");
}

TEST(Result, MovesValuesThatCannotBeCopied) {
  const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(9); };
  const auto use = [&]() -> Result<int> {
    LATHE_TRY(const std::unique_ptr<int> pointer, make());
    return *pointer;
  };
  EXPECT_EQ(*use(), 9);
}

TEST(Error, AtPutsThePlaceInFront) {
  const Error error = Error{Errc::kNotFound, "missing"}.at("layer 3").at("file");
  EXPECT_EQ(error.message, "file: layer 3: missing");
  EXPECT_EQ(error.code, Errc::kNotFound);
}

TEST(ResultDeathTest, TheValueOfAnErrorAbortsWithItsMessage) {
  const Result<int> result = positive(-1);
  EXPECT_DEATH((void)*result, "internal error: .*result.h:[0-9]+: .*expected a positive number, found -1");
}

TEST(CheckDeathTest, AbortsWithFileLineAndValues) {
  const int rows = 3;
  EXPECT_DEATH(LATHE_CHECK(rows == 4, "rows ", rows), "result_test.cpp:[0-9]+: rows == 4: rows 3");
}

}  // namespace
}  // namespace lathe
