#include "lathe/server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <sstream>

namespace lathe::server {
namespace {

using ::testing::HasSubstr;

TEST(Histogram, CountsBelowEachBound) {
  Histogram histogram({1.0, 2.5});
  histogram.observe(0.5);
  histogram.observe(1.0);  // a bound belongs to its bucket
  histogram.observe(2.0, 3);
  histogram.observe(9.0);
  std::string out;
  histogram.render(out, "x", "a=\"b\"");
  EXPECT_EQ(out,
            "x_bucket{a=\"b\",le=\"1\"} 2\n"
            "x_bucket{a=\"b\",le=\"2.5\"} 5\n"
            "x_bucket{a=\"b\",le=\"+Inf\"} 6\n"
            "x_sum{a=\"b\"} 16.5\n"
            "x_count{a=\"b\"} 6\n");
}

EngineStats some_stats() {
  EngineStats stats;
  stats.running = 3;
  stats.waiting = 2;
  stats.pages = 10;
  stats.free_pages = 4;
  stats.cached_pages = 1;
  stats.prompt_tokens = 100;
  stats.cached_prompt_tokens = 64;
  stats.generated_tokens = 50;
  stats.preemptions = 7;
  stats.draft_tokens = 20;
  stats.accepted_draft_tokens = 17;
  stats.drafter = DrafterKind::kMtp;
  return stats;
}

TEST(Metrics, TellsWhatTheEngineDoes) {
  const std::string page = Metrics().render("lathe", "m", some_stats());
  const std::string labels = "{model_name=\"m\",engine=\"0\"} ";
  EXPECT_THAT(page, HasSubstr("\nlathe:num_requests_running" + labels + "3\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:num_requests_waiting" + labels + "2\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:kv_cache_usage_perc" + labels + "0.5\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:kv_cache_pages" + labels + "10\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:kv_cache_free_pages" + labels + "4\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:kv_cache_prefix_pages" + labels + "1\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:prefix_cache_hits_total" + labels + "64\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:num_preemptions_total" + labels + "7\n"));
  const std::string by_mtp = "{model_name=\"m\",engine=\"0\",drafter=\"mtp\"} ";
  EXPECT_THAT(page, HasSubstr("\nlathe:spec_decode_num_draft_tokens_total" + by_mtp + "20\n"));
  EXPECT_THAT(page, HasSubstr("\nlathe:spec_decode_num_accepted_tokens_total" + by_mtp + "17\n"));
  EXPECT_THAT(Metrics().render("vllm", "m", {}), HasSubstr("\nvllm:kv_cache_usage_perc" + labels + "0\n"));
}

TEST(Metrics, CountsAnswersAndResponses) {
  Metrics metrics;
  metrics.count_response("/v1/completions", 200);
  metrics.count_response("/v1/completions", 200);
  metrics.count_response("refused", 401);
  ++metrics.finished["stop"];
  metrics.time_to_first_token.observe(0.03);
  const std::string page = metrics.render("lathe", "m", {});
  const std::string labels = "{model_name=\"m\",engine=\"0\"";
  EXPECT_THAT(page,
              HasSubstr("lathe:http_requests_total" + labels + ",endpoint=\"/v1/completions\",status=\"200\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("lathe:http_requests_total" + labels + ",endpoint=\"refused\",status=\"401\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("lathe:request_success_total" + labels + ",finished_reason=\"stop\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("lathe:time_to_first_token_seconds_bucket" + labels + ",le=\"0.02\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("lathe:time_to_first_token_seconds_bucket" + labels + ",le=\"0.04\"} 1\n"));
}

// What Prometheus asks of the text: every metric has its type once, before its values; no value is twice.
TEST(Metrics, IsWellFormed) {
  Metrics metrics;
  metrics.count_response("/", 200);
  ++metrics.finished["length"];
  std::istringstream page(metrics.render("lathe", "a\"b\\c\nd", some_stats()));
  std::set<std::string> types;
  std::set<std::string> values;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("# HELP ")) continue;
    if (line.starts_with("# TYPE ")) {
      EXPECT_TRUE(types.insert(line.substr(7, line.find(' ', 7) - 7)).second) << line;
      continue;
    }
    std::string name = line.substr(0, line.find('{'));
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      if (!types.contains(name) && name.ends_with(suffix)) name.resize(name.size() - std::string(suffix).size());
    }
    EXPECT_TRUE(types.contains(name)) << line;
    EXPECT_TRUE(values.insert(line.substr(0, line.rfind(' '))).second) << line;
    EXPECT_THAT(line, HasSubstr("model_name=\"a\\\"b\\\\c d\""));
  }
  EXPECT_GT(types.size(), 25U);
}

}  // namespace
}  // namespace lathe::server
