// config.json, and everything that is computed from a configuration alone.
#include "fuzz.h"
#include "lathe/base/json.h"
#include "lathe/model/config.h"
#include "lathe/model/shapes.h"

using lathe::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const lathe::Result<lathe::Json> json = lathe::parse_json({reinterpret_cast<const char*>(data), size});
  if (!json) return 0;
  const lathe::Result<lathe::ParsedConfig> parsed = lathe::parse_config(*json);
  if (!parsed) {
    lathe::fuzz::require_clean_message(parsed.error().message);
    return 0;
  }
  for (const std::string& warning : parsed->warnings) lathe::fuzz::require_clean_message(warning);
  const lathe::ModelConfig& config = parsed->config;
  require(config.num_attention_heads > 0 && config.hidden_size > 0 && config.num_hidden_layers > 0,
          "empty model accepted");
  require(config.num_experts_per_tok <= config.n_routed_experts, "more experts chosen than there are");
  require(config.cache_row_elements() > 0, "cache row of no elements");
  const lathe::ParameterCounts counts = lathe::count_parameters(config);
  require(counts.total > 0 && counts.active > 0, "parameter count overflows");
  const lathe::CacheComparison cache = lathe::compare_caches(config);
  require(cache.elements_per_token > 0, "cache size overflows");
  return 0;
}
