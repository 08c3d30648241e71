#include "lathe/cli/conversion.h"

#include <gtest/gtest.h>

namespace lathe::cli {
namespace {

TEST(Conversion, ProgressSaysWhatIsLeft) {
  const convert::Progress progress{.tensor = "blk.3.attn_q.weight",
                                   .tensors_done = 11,
                                   .tensors = 96,
                                   .bytes_done = uint64_t{1} << 30,
                                   .bytes = uint64_t{4} << 30};
  EXPECT_EQ(describe_progress(progress, 10.0),
            "12/96 blk.3.attn_q.weight, 1.00 GiB of 4.00 GiB, 25 %, 102.40 MiB/s, 0:30 left");
  EXPECT_NE(describe_progress({}, 0.0).find("0 B of 0 B"), std::string::npos) << describe_progress({}, 0.0);
}

convert::Report sample() {
  convert::Report report;
  report.tensors.push_back({.name = "token_embd.weight",
                            .source_dtype = "BF16",
                            .dtype = DType::kQ4_K,
                            .shape = {64, 256},
                            .elements = 16384,
                            .bytes = 9216,
                            .relative_rms = 0.0712345,
                            .largest_error = 0.017});
  report.tensors.push_back({.name = "output_norm.weight",
                            .source_dtype = "BF16",
                            .dtype = DType::kF32,
                            .shape = {256},
                            .elements = 256,
                            .bytes = 1024,
                            .relative_rms = 0.0,
                            .largest_error = 0.0});
  report.elements = 16640;
  report.bytes = 10240;
  report.file_bytes = 11264;
  report.bits_per_weight = 4.923;
  report.relative_rms = 0.00000312;
  report.seconds = 1.25;
  return report;
}

TEST(Conversion, ReportHasALineForEveryTensorAndTheTotals) {
  const std::string text = describe_report(sample());
  EXPECT_NE(text.find("token_embd.weight   64 x 256  BF16     Q4_K    0.071235"), std::string::npos) << text;
  EXPECT_NE(text.find("output_norm.weight  256       BF16     F32     0 "), std::string::npos) << text;
  EXPECT_NE(text.find("2 tensors, 16,640 values, 11.00 KiB, 4.923 bits per weight, relative rms 3.12e-6"),
            std::string::npos)
      << text;
}

TEST(Conversion, JsonHasTheSame) {
  const Json json = report_json(sample());
  ASSERT_EQ(json.find("tensors")->as_array().size(), 2U);
  const Json& first = json.find("tensors")->as_array().front();
  EXPECT_EQ(first.find("name")->as_string(), "token_embd.weight");
  EXPECT_EQ(first.find("from")->as_string(), "BF16");
  EXPECT_EQ(first.find("to")->as_string(), "Q4_K");
  EXPECT_EQ(first.find("relative_rms")->as_double(), 0.0712345);
  EXPECT_EQ(json.find("file_bytes")->as_int(), 11264);
}

}  // namespace
}  // namespace lathe::cli
