// Every field of every fixture replaced by awkward values: a config is either refused with one line that names the
// place, or accepted, and then everything derived from it can be computed (the sanitizer builds watch for overflow).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/model/config.h"
#include "lathe/model/config_rope.h"
#include "lathe/model/memory_plan.h"
#include "lathe/model/shapes.h"
#include "support/golden.h"

namespace lathe {
namespace {

std::vector<Json> awkward_values() {
  return {Json(),
          Json(true),
          Json(0),
          Json(-1),
          Json(1),
          Json(3),
          Json(65536),
          Json(int64_t{1} << 30),
          Json(INT64_MAX),
          Json(INT64_MIN),
          Json(0.5),
          Json(-0.0),
          Json(1e-300),
          Json(1e308),
          Json(9007199254740993.0),
          Json(""),
          Json("yarn"),
          Json("greedy"),
          Json("x\n\x1b[0m"),
          Json::array(),
          Json::object(),
          Json::list(std::vector<int64_t>{-1, 2})};
}

std::vector<Json> fixtures() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(testing::golden_dir() / "configs")) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());  // so that a seed means the same everywhere
  std::vector<Json> out;
  for (const std::filesystem::path& path : paths) {
    Result<Json> json = read_json(path);
    EXPECT_TRUE(json.has_value()) << path;
    if (json) out.push_back(*std::move(json));
  }
  EXPECT_FALSE(out.empty());
  return out;
}

// Uses what an accepted config promises; returns a number so that nothing is optimised away.
double derive(const ModelConfig& config) {
  const ParameterCounts counts = count_parameters(config);
  EXPECT_GT(counts.total, 0);
  EXPECT_LE(counts.total, kMaxParameters);
  EXPECT_GE(counts.active_with_embedding, counts.active_without_head);
  const CacheComparison caches = compare_caches(config);
  EXPECT_GT(caches.elements_per_token, 0);
  const RopeTable table = RopeTable::make(rope_parameters(config));
  std::vector<float> cos(static_cast<size_t>(table.pairs())), sin(cos.size());
  table.cos_sin(config.max_position_embeddings - 1, cos.data(), sin.data());
  for (size_t i = 0; i < cos.size(); ++i) EXPECT_TRUE(std::isfinite(cos[i]) && std::isfinite(sin[i]));
  const double scale = attention_scale(config);
  EXPECT_TRUE(std::isfinite(scale) && scale > 0.0);
  const std::optional<int64_t> scratch = scratch_floats(config, {});
  EXPECT_TRUE(!scratch || *scratch > 0);
  return scale + static_cast<double>(counts.active + caches.elements_per_token);
}

void check(const Json& json, std::string_view what) {
  const Result<ParsedConfig> parsed = parse_config(json);
  if (parsed) {
    EXPECT_GT(derive(parsed->config), 0.0) << what;
    for (const std::string& warning : parsed->warnings) EXPECT_EQ(warning.find('\n'), std::string::npos) << warning;
    return;
  }
  const std::string& message = parsed.error().message;
  EXPECT_TRUE(parsed.error().code == Errc::kInvalidData || parsed.error().code == Errc::kUnsupported) << message;
  EXPECT_NE(message.find("expected "), std::string::npos) << message;
  EXPECT_LT(message.size(), 400u) << message;
  for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
}

TEST(ConfigProperty, OneAwkwardFieldAtATime) {
  const std::vector<Json> values = awkward_values();
  for (const Json& fixture : fixtures()) {
    for (const Json::Member& member : fixture.as_object()) {
      for (const Json& value : values) {
        Json json = fixture;
        json.set(member.first, value);
        check(json, member.first);
        if (!member.second.is_object()) continue;
        for (const Json::Member& inner : member.second.as_object()) {
          Json object = member.second;
          object.set(inner.first, value);
          json.set(member.first, object);
          check(json, inner.first);
        }
      }
    }
  }
}

TEST(ConfigProperty, ManyAwkwardFieldsAtOnce) {
  const std::vector<Json> values = awkward_values();
  const std::vector<Json> all = fixtures();
  constexpr uint64_t kSeed = 20240507;
  SCOPED_TRACE(str("seed ", kSeed));
  Rng rng(kSeed);
  const auto below = [&](size_t n) { return static_cast<size_t>(rng.next_int(0, static_cast<int64_t>(n) - 1)); };
  for (int round = 0; round < 3000; ++round) {
    Json json = all[below(all.size())];
    const Json other = all[below(all.size())];
    for (size_t change = 1 + below(4); change > 0; --change) {
      const Json::Member& member = json.as_object()[below(json.as_object().size())];
      const Json* foreign = other.find(member.first);
      const bool take_foreign = foreign != nullptr && below(2) == 0;
      json.set(std::string(member.first), take_foreign ? *foreign : values[below(values.size())]);
    }
    check(json, "several fields");
  }
}

}  // namespace
}  // namespace lathe
