// Metrics in Prometheus' text form, with the names and labels that vLLM uses, behind a prefix of ours. Not thread safe:
// the server's event loop owns them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/engine.h"

namespace lathe::server {

class Histogram {
 public:
  // Upper bounds of the buckets, ascending; one above all is added.
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

  // Counts `times` values.
  void observe(double value, uint64_t times = 1);

  // Lines of the buckets, the sum and the count. `labels` without braces.
  void render(std::string& out, std::string_view name, std::string_view labels) const;

 private:
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;
  double sum_ = 0.0;
  uint64_t count_ = 0;
};

class Metrics {
 public:
  Metrics();

  // A request has been answered: with which status, on which endpoint.
  void count_response(std::string_view endpoint, int status);

  std::map<std::string, uint64_t> finished;  // answers by their finish_reason; "abort" for cancelled ones
  uint64_t disconnects = 0;                  // requests whose client went away
  int64_t preparing = 0;                     // requests before the engine
  int64_t connections = 0;
  Histogram time_to_first_token;  // seconds, like all times
  Histogram time_between_tokens;
  Histogram request_latency;
  Histogram queue_time;
  Histogram prefill_time;
  Histogram decode_time;
  Histogram prompt_tokens;
  Histogram generation_tokens;
  Histogram params_n;
  Histogram params_max_tokens;

  // The whole page. `prefix` is "lathe" or what dashboards expect ("vllm").
  std::string render(std::string_view prefix, std::string_view model, const EngineStats& stats) const;

 private:
  std::map<std::pair<std::string, int>, uint64_t> responses_;
};

}  // namespace lathe::server
