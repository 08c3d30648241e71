#include "lathe/server/metrics.h"

#include <algorithm>

#include "lathe/base/str.h"

namespace lathe::server {

namespace {

// Bounds from 1, 2 and 5 times the powers of ten.
std::vector<double> one_two_five(double most) {
  std::vector<double> out;
  double decade = 1.0;
  while (decade <= most) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (decade * factor <= most) out.push_back(decade * factor);
    }
    decade *= 10;
  }
  return out;
}

std::vector<double> latency_bounds() {
  return {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
          30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
}

void add_type(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  out += str("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

}  // namespace

void Histogram::observe(double value, uint64_t times) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)] += times;
  sum_ += value * static_cast<double>(times);
  count_ += times;
}

void Histogram::render(std::string& out, std::string_view name, std::string_view labels) const {
  uint64_t below = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    below += counts_[i];
    out += str(name, "_bucket{", labels, ",le=\"", bounds_[i], "\"} ", below, "\n");
  }
  out += str(name, "_bucket{", labels, ",le=\"+Inf\"} ", count_, "\n");
  out += str(name, "_sum{", labels, "} ", sum_, "\n");
  out += str(name, "_count{", labels, "} ", count_, "\n");
}

Metrics::Metrics()
    : time_to_first_token({0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                           1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0}),
      time_between_tokens({0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,  0.3,
                           0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10.0, 20.0, 40.0, 80.0}),
      request_latency(latency_bounds()),
      queue_time(latency_bounds()),
      prefill_time(latency_bounds()),
      decode_time(latency_bounds()),
      prompt_tokens(one_two_five(200'000)),
      generation_tokens(one_two_five(200'000)),
      params_n({1, 2, 5, 10, 20}),
      params_max_tokens(one_two_five(200'000)) {}

void Metrics::count_response(std::string_view endpoint, int status) {
  ++responses_[{std::string(endpoint), status}];
}

std::string Metrics::render(std::string_view prefix, std::string_view model, const EngineStats& stats) const {
  std::string out;
  // Label values escape backslash, quote and newline.
  std::string escaped;
  for (const char c : model) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  const std::string labels = str("model_name=\"", escaped, "\",engine=\"0\"");
  const auto one = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    const std::string full = str(prefix, ":", name);
    add_type(out, full, type, help);
    out += str(full, "{", labels, "} ", value, "\n");
  };
  const double used = stats.pages > 0 ? 1.0 - static_cast<double>(stats.free_pages + stats.cached_pages) /
                                                  static_cast<double>(stats.pages)
                                      : 0.0;
  one("num_requests_running", "gauge", "Answers that the engine works on.", stats.running);
  one("num_requests_waiting", "gauge", "Answers that wait for the engine.", stats.waiting);
  one("kv_cache_usage_perc", "gauge", "Share of the cache that running requests use; 1 is all.", used);
  one("kv_cache_pages", "gauge", "Pages of the cache, 64 positions each.", stats.pages);
  one("kv_cache_free_pages", "gauge", "Pages that hold nothing.", stats.free_pages);
  one("kv_cache_prefix_pages", "gauge", "Pages kept for prompts that begin alike.", stats.cached_pages);
  one("prompt_tokens_total", "counter", "Tokens of prompts, cached ones included.", stats.prompt_tokens);
  one("generation_tokens_total", "counter", "Tokens generated.", stats.generated_tokens);
  one("prefix_cache_queries_total", "counter", "Tokens of prompts looked up in the prefix cache.", stats.prompt_tokens);
  one("prefix_cache_hits_total", "counter", "Tokens of prompts found in the prefix cache.", stats.cached_prompt_tokens);
  one("num_preemptions_total",
      "counter",
      "Times an answer gave up its pages and was computed anew.",
      stats.preemptions);
  const auto by_drafter = [&](std::string_view name, std::string_view help, int64_t value) {
    const std::string full = str(prefix, ":", name);
    add_type(out, full, "counter", help);
    out += str(full, "{", labels, ",drafter=\"", name_of(stats.drafter), "\"} ", value, "\n");
  };
  by_drafter("spec_decode_num_draft_tokens_total", "Tokens guessed by speculation.", stats.draft_tokens);
  by_drafter("spec_decode_num_accepted_tokens_total", "Guessed tokens that were right.", stats.accepted_draft_tokens);
  one("engine_steps_total", "counter", "Forward passes.", stats.steps);
  one("num_requests_preparing", "gauge", "Requests whose prompt is being rendered and tokenized.", preparing);
  one("http_connections", "gauge", "Open connections.", connections);
  one("http_disconnects_total", "counter", "Requests given up because their client went away.", disconnects);

  const std::string success = str(prefix, ":request_success_total");
  add_type(out, success, "counter", "Answers that ended, by reason.");
  for (const auto& [reason, count] : finished) {
    out += str(success, "{", labels, ",finished_reason=\"", reason, "\"} ", count, "\n");
  }
  const std::string responses = str(prefix, ":http_requests_total");
  add_type(out, responses, "counter", "HTTP responses, by endpoint and status.");
  for (const auto& [key, count] : responses_) {
    out += str(responses, "{", labels, ",endpoint=\"", key.first, "\",status=\"", key.second, "\"} ", count, "\n");
  }

  const auto histogram = [&](std::string_view name, std::string_view help, const Histogram& values) {
    const std::string full = str(prefix, ":", name);
    add_type(out, full, "histogram", help);
    values.render(out, full, labels);
  };
  histogram("time_to_first_token_seconds", "From the request's last byte to its first token.", time_to_first_token);
  histogram("time_per_output_token_seconds", "Between the tokens of an answer.", time_between_tokens);
  histogram("inter_token_latency_seconds", "The same, by vLLM's newer name.", time_between_tokens);
  histogram("e2e_request_latency_seconds", "From the request's last byte to its answer's end.", request_latency);
  histogram("request_queue_time_seconds", "Wait for the engine.", queue_time);
  histogram("request_prefill_time_seconds", "Computation of the prompt.", prefill_time);
  histogram("request_decode_time_seconds", "From the first token to the last.", decode_time);
  histogram("request_prompt_tokens", "Tokens of the prompt.", prompt_tokens);
  histogram("request_generation_tokens", "Tokens of the answers.", generation_tokens);
  histogram("request_params_n", "Answers asked for.", params_n);
  histogram("request_params_max_tokens", "max_tokens asked for.", params_max_tokens);
  return out;
}

}  // namespace lathe::server
