#include "lathe/cli/bench_report.h"

#include <algorithm>

#include "lathe/base/str.h"

namespace lathe::cli {
namespace {

double percent_of(double value, double whole) {
  return whole > 0.0 ? 100.0 * value / whole : 0.0;
}

Json machine_json(const BenchMachine& m) {
  Json out = Json::object();
  out.set("cpu", m.facts.cpu);
  out.set("isa", m.facts.isa);
  out.set("threads", m.threads);
  out.set("physical_cores", m.limits.physical_cores);
  out.set("affinity_cpus", m.limits.affinity_cpus);
  out.set("load", m.facts.load ? Json(*m.facts.load) : Json());
  out.set("transparent_huge_pages", m.limits.transparent_huge_pages);
  out.set("bandwidth_bytes_per_s", m.bandwidth);
  out.set("fp32_peak_op_per_s", m.fp32_peak);
  out.set("int8_peak_op_per_s", m.int8_peak);
  return out;
}

Json model_json(const BenchedModel& m) {
  Json parameters = Json::object();
  parameters.set("total", m.parameters);
  parameters.set("active", m.active_parameters);
  Json types = Json::object();
  for (const auto& [type, bytes] : m.type_bytes) types.set(dtype_name(type), static_cast<int64_t>(bytes));
  Json out = Json::object();
  out.set("name", m.name);
  out.set("synthetic", m.synthetic);
  out.set("architecture", m.architecture);
  out.set("parameters", std::move(parameters));
  out.set("weight_bytes", m.weight_bytes);
  out.set("types", std::move(types));
  out.set("cache_type", m.cache_type);
  out.set("cache_bytes_per_token", m.cache_bytes_per_token);
  return out;
}

Json row_json(const BenchRow& row, const BenchReport& report) {
  const BenchFigures f = figures_of(row, report);
  Json rate = Json::object();
  rate.set("median", f.tok_per_s.median);
  rate.set("min", f.tok_per_s.min);
  rate.set("max", f.tok_per_s.max);
  Json out = Json::object();
  out.set("kind", name_of(row.measured.kind));
  out.set("tokens", row.measured.tokens);
  out.set("depth", row.measured.depth);
  out.set("tok_per_s", std::move(rate));
  out.set("bytes_per_token", f.bytes_per_token);
  out.set("operations_per_token", f.operations_per_token);
  out.set("bandwidth_percent", f.bandwidth_percent);
  out.set("peak_percent", f.peak_percent);
  out.set("seconds", Json::list(row.seconds));
  return out;
}

// Digits that mean something: 1234, 123, 12.3, 1.23, 0.123.
std::string short_number(double value) {
  if (value < 0.9995) return fixed(value, 3);
  return fixed(value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
}

std::string count_text(int64_t count) {
  const auto value = static_cast<double>(count);
  return count >= 1'000'000'000 ? fixed(value / 1e9, 2) + " B" : fixed(value / 1e6, 2) + " M";
}

// Columns padded to the widest cell, the first to the right edge of the others' text.
std::string aligned(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()), 0);
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string out;
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      if (i > 0) out += "  ";
      out += i == 0 ? line[i] + padding : padding + line[i];
    }
    out += '\n';
  }
  return out;
}

}  // namespace

DType BenchedModel::main_type() const {
  const auto most = std::ranges::max_element(type_bytes, {}, [](const auto& entry) { return entry.second; });
  return most == type_bytes.end() ? DType::kF32 : most->first;
}

BenchFigures figures_of(const BenchRow& row, const BenchReport& report) {
  const auto tokens = static_cast<double>(row.measured.tokens);
  BenchFigures out;
  out.tok_per_s = row.tokens_per_second();
  out.bytes_per_token = row.cost.bytes / tokens;
  out.operations_per_token = row.cost.operations / tokens;
  const double rate = out.tok_per_s.median;
  const double peak = report.integer_products() ? report.machine.int8_peak : report.machine.fp32_peak;
  out.bandwidth_percent = percent_of(rate * out.bytes_per_token, report.machine.bandwidth);
  out.peak_percent = percent_of(rate * out.operations_per_token, peak);
  return out;
}

Json bench_json(const BenchReport& report) {
  Json rows = Json::array();
  for (const BenchRow& row : report.rows) rows.push(row_json(row, report));
  Json out = Json::object();
  out.set("machine", machine_json(report.machine));
  out.set("model", model_json(report.model));
  out.set("repeats", report.repeats);
  out.set("batch_tokens", report.batch_tokens);
  out.set("peak", report.integer_products() ? "int8" : "fp32");
  out.set("signature", report.signature);
  out.set("rows", std::move(rows));
  out.set("load_s", report.load_s);
  out.set("peak_rss_bytes", report.peak_rss_bytes);
  return out;
}

std::string bench_text(const BenchReport& report) {
  const BenchedModel& model = report.model;
  const BenchMachine& machine = report.machine;
  std::string out = str("model      ",
                        model.name,
                        model.synthetic ? " (made-up weights)" : "",
                        ": ",
                        count_text(model.parameters),
                        " parameters, ",
                        count_text(model.active_parameters),
                        " active, ",
                        dtype_name(model.main_type()),
                        " ",
                        human_bytes(model.weight_bytes),
                        ", cache ",
                        model.cache_type,
                        "\n");
  out += str("machine    ",
             machine.facts.cpu,
             ", ",
             machine.facts.isa,
             ", ",
             machine.threads,
             machine.threads == 1 ? " thread: " : " threads: ",
             fixed(machine.bandwidth / 1e9, 1),
             " GB/s, fp32 ",
             fixed(machine.fp32_peak / 1e9, 0),
             " GFLOP/s, int8 ",
             fixed(machine.int8_peak / 1e9, 0),
             " Gop/s\n");
  out += str("load       ", fixed(report.load_s, 2), " s, at most ", human_bytes(report.peak_rss_bytes), " resident\n");
  out += str("signature  ", report.signature, "\n\n");
  std::vector<std::vector<std::string>> lines{
      {"kind", "tokens", "depth", "tok/s", "min", "max", "ms/token", "GB/s", "% bandwidth", "% peak"}};
  for (const BenchRow& row : report.rows) {
    const BenchFigures f = figures_of(row, report);
    lines.push_back({std::string(name_of(row.measured.kind)),
                     str(row.measured.tokens),
                     str(row.measured.depth),
                     short_number(f.tok_per_s.median),
                     short_number(f.tok_per_s.min),
                     short_number(f.tok_per_s.max),
                     short_number(1e3 / f.tok_per_s.median),
                     short_number(f.bytes_per_token * f.tok_per_s.median / 1e9),
                     fixed(f.bandwidth_percent, 1),
                     fixed(f.peak_percent, 1)});
  }
  return out + aligned(lines);
}

}  // namespace lathe::cli
