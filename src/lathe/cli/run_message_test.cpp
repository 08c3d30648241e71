#include "lathe/cli/run_message.h"

#include <gtest/gtest.h>

namespace lathe::cli {
namespace {

using Message = std::optional<std::string>;

TEST(MessageReader, OneLineIsOneMessage) {
  MessageReader reader;
  EXPECT_EQ(reader.push("hello"), Message("hello"));
  EXPECT_EQ(reader.push(""), Message(""));
  EXPECT_FALSE(reader.pending());
}

TEST(MessageReader, BackslashAtTheEndContinues) {
  MessageReader reader;
  EXPECT_EQ(reader.push("one\\"), std::nullopt);
  EXPECT_TRUE(reader.pending());
  EXPECT_EQ(reader.push("\\"), std::nullopt);
  EXPECT_EQ(reader.push("three"), Message("one\n\nthree"));
  EXPECT_FALSE(reader.pending());
}

TEST(MessageReader, BlockBetweenMarksOnTheirOwnLines) {
  MessageReader reader;
  EXPECT_EQ(reader.push("\"\"\""), std::nullopt);
  EXPECT_TRUE(reader.pending());
  EXPECT_EQ(reader.push("a \\"), std::nullopt);
  EXPECT_EQ(reader.push(""), std::nullopt);
  EXPECT_EQ(reader.push("/clear"), std::nullopt);
  EXPECT_EQ(reader.push("\"\"\""), Message("a \\\n\n/clear"));
  EXPECT_EQ(reader.push("next"), Message("next"));
}

TEST(MessageReader, MarksMayShareLinesWithText) {
  MessageReader reader;
  EXPECT_EQ(reader.push("\"\"\"first"), std::nullopt);
  EXPECT_EQ(reader.push("last\"\"\""), Message("first\nlast"));
  EXPECT_EQ(reader.push("\"\"\"alone\"\"\""), Message("alone"));
  EXPECT_EQ(reader.push("\"\"\"\"\"\""), Message(""));
}

TEST(MessageReader, MarkInsideALineIsText) {
  MessageReader reader;
  EXPECT_EQ(reader.push("say \"\"\""), Message("say \"\"\""));
  EXPECT_EQ(reader.push("one\\"), std::nullopt);
  EXPECT_EQ(reader.push("\"\"\"two"), Message("one\n\"\"\"two"));
}

TEST(MessageReader, ResetForgets) {
  MessageReader reader;
  EXPECT_EQ(reader.push("\"\"\"secret"), std::nullopt);
  reader.reset();
  EXPECT_FALSE(reader.pending());
  EXPECT_EQ(reader.push("open"), Message("open"));
}

}  // namespace
}  // namespace lathe::cli
