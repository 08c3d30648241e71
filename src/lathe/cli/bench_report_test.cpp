#include "lathe/cli/bench_report.h"

#include <gtest/gtest.h>

namespace lathe::cli {
namespace {

BenchReport sample(DType type) {
  BenchReport report;
  report.machine.facts.cpu = "Some Processor";
  report.machine.facts.isa = "avx2";
  report.machine.threads = 2;
  report.machine.bandwidth = 20e9;
  report.machine.fp32_peak = 100e9;
  report.machine.int8_peak = 400e9;
  report.model.name = "some/folder";
  report.model.architecture = "DeepseekV2ForCausalLM";
  report.model.parameters = 15'706'000'000;
  report.model.active_parameters = 2'451'000'000;
  report.model.weight_bytes = uint64_t{16} << 30;
  report.model.type_bytes = {{DType::kF32, 10.0}, {type, 1000.0}};
  report.model.cache_type = "f16";
  report.model.cache_bytes_per_token = 31'104;
  report.repeats = 3;
  report.batch_tokens = 512;
  report.signature = "0123456789abcdef";
  report.load_s = 1.5;
  report.peak_rss_bytes = uint64_t{17} << 30;
  report.rows = {{.measured = {BenchKind::kPrompt, 512, 0}, .seconds = {10.0, 12.0, 9.0}, .cost = {32e9, 2e12}},
                 {.measured = {BenchKind::kGeneration, 8, 4096}, .seconds = {2.0, 1.6, 1.0}, .cost = {20e9, 40e9}}};
  return report;
}

TEST(BenchReport, FiguresAreSharesOfTheMachine) {
  const BenchReport report = sample(DType::kQ8_0);
  const BenchFigures gen = figures_of(report.rows[1], report);
  EXPECT_DOUBLE_EQ(gen.tok_per_s.median, 5.0);
  EXPECT_DOUBLE_EQ(gen.tok_per_s.min, 4.0);
  EXPECT_DOUBLE_EQ(gen.tok_per_s.max, 8.0);
  EXPECT_DOUBLE_EQ(gen.bytes_per_token, 2.5e9);
  EXPECT_DOUBLE_EQ(gen.operations_per_token, 5e9);
  EXPECT_DOUBLE_EQ(gen.bandwidth_percent, 62.5);  // 12.5 of 20 GB/s
  EXPECT_DOUBLE_EQ(gen.peak_percent, 6.25);       // 25 of 400 Gop/s
  const BenchReport plain = sample(DType::kBF16);
  EXPECT_DOUBLE_EQ(figures_of(plain.rows[1], plain).peak_percent, 25.0);  // of 100 GFLOP/s
  BenchReport unmeasured = plain;
  unmeasured.machine = {};
  EXPECT_DOUBLE_EQ(figures_of(plain.rows[1], unmeasured).bandwidth_percent, 0.0);
}

TEST(BenchReport, TheDocumentHasItsKeys) {
  const Json json = bench_json(sample(DType::kQ8_0));
  for (const char* key : {"machine", "model", "rows", "load_s", "peak_rss_bytes", "signature"}) {
    EXPECT_NE(json.find(key), nullptr) << key;
  }
  EXPECT_EQ(json.find("peak")->as_string(), "int8");
  ASSERT_EQ(json.find("rows")->as_array().size(), 2u);
  const Json& row = json.find("rows")->as_array()[1];
  EXPECT_EQ(row.find("kind")->as_string(), "gen");
  EXPECT_EQ(row.find("tokens")->as_int(), 8);
  EXPECT_EQ(row.find("depth")->as_int(), 4096);
  EXPECT_EQ(row.find("tok_per_s")->find("median")->as_double(), 5.0);
  EXPECT_EQ(row.find("bytes_per_token")->as_double(), 2.5e9);
  EXPECT_EQ(row.find("bandwidth_percent")->as_double(), 62.5);
  EXPECT_EQ(row.find("peak_percent")->as_double(), 6.25);
  EXPECT_EQ(row.find("seconds")->as_array().size(), 3u);
  EXPECT_EQ(json.find("model")->find("types")->find("Q8_0")->as_int(), 1000);
  EXPECT_EQ(json.find("machine")->find("load")->is_null(), true);
}

TEST(BenchReport, TheTableIsAligned) {
  const std::string text = bench_text(sample(DType::kQ8_0));
  EXPECT_NE(text.find("some/folder: 15.71 B parameters, 2.45 B active, Q8_0 16.00 GiB, cache f16"), std::string::npos)
      << text;
  EXPECT_NE(text.find("2 threads: 20.0 GB/s, fp32 100 GFLOP/s, int8 400 Gop/s"), std::string::npos) << text;
  const std::string table = text.substr(text.find("\n\n") + 2);
  EXPECT_EQ(table,
            "kind    tokens  depth  tok/s   min   max  ms/token  GB/s  % bandwidth  % peak\n"
            "prompt     512      0   51.2  42.7  56.9      19.5  3.20         16.0    50.0\n"
            "gen          8   4096   5.00  4.00  8.00       200  12.5         62.5     6.2\n");
}

}  // namespace
}  // namespace lathe::cli
