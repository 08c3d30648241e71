// What `lathe bench` found, as a table or as the JSON document of docs/cli.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/cli/doctor_checks.h"
#include "lathe/runtime/model_bench.h"

namespace lathe::cli {

struct BenchMachine {
  HostFacts facts;
  MachineLimits limits;
  int threads = 1;
  double bandwidth = 0.0;  // bytes per second that `threads` threads read; 0: not measured
  double fp32_peak = 0.0;  // operations per second, likewise
  double int8_peak = 0.0;
};

struct BenchedModel {
  std::string name;  // folder or file, or that of the configuration
  bool synthetic = false;
  std::string architecture;
  int64_t parameters = 0;
  int64_t active_parameters = 0;
  uint64_t weight_bytes = 0;
  std::map<DType, double> type_bytes;  // bytes of the matrices by type
  std::string cache_type;
  int64_t cache_bytes_per_token = 0;

  // The type that most of the matrices' bytes are in.
  DType main_type() const;
};

struct BenchReport {
  BenchMachine machine;
  BenchedModel model;
  int64_t repeats = 0;
  int64_t batch_tokens = 0;
  std::string signature;
  std::vector<BenchRow> rows;
  double load_s = 0.0;
  uint64_t peak_rss_bytes = 0;

  // Products with block formats run on integers, so that the int8 peak is the one that counts.
  bool integer_products() const { return is_block_format(model.main_type()); }
};

// One row in the units of the report.
struct BenchFigures {
  BenchRow::Rate tok_per_s;
  double bytes_per_token = 0.0;
  double operations_per_token = 0.0;
  double bandwidth_percent = 0.0;  // of the median; 0 where the machine was not measured
  double peak_percent = 0.0;
};

// The row against what the machine of the report reaches.
BenchFigures figures_of(const BenchRow& row, const BenchReport& report);

// The document that `--json` prints.
Json bench_json(const BenchReport& report);
// Lines about model and machine, then one line per row.
std::string bench_text(const BenchReport& report);

}  // namespace lathe::cli
