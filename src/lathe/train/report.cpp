#include "lathe/train/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "lathe/base/str.h"
#include "lathe/base/svg_chart.h"
#include "lathe/model/shapes.h"

namespace lathe::train {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

double number_in(const Json& line, std::string_view key) {
  const Json* value = line.find(key);
  return value != nullptr && value->is_number() ? value->as_double() : kNothing;
}

// The lines that have `key`, over their steps.
LineSeries curve_of(const ReportRun& run, std::string_view key) {
  LineSeries out{.name = run.name};
  for (const Json& line : run.lines) {
    const double value = number_in(line, key);
    if (!std::isfinite(value)) continue;
    out.x.push_back(number_in(line, "step"));
    out.y.push_back(value);
  }
  return out;
}

// Means over a sliding window, so that curves of several runs can be told apart.
LineSeries smoothed(LineSeries curve, size_t window) {
  const std::vector<double> raw = curve.y;
  double sum = 0.0;
  for (size_t i = 0; i < raw.size(); ++i) {
    sum += raw[i];
    if (i >= window) sum -= raw[i - window];
    curve.y[i] = sum / static_cast<double>(std::min(i + 1, window));
  }
  return curve;
}

std::string plot_of(
    std::span<const ReportRun> runs, std::string_view key, std::string title, bool smooth = false, bool log_y = false) {
  LineChart chart{.frame = {.title = std::move(title), .x_label = "step", .inside_page = true}, .log_y = log_y};
  bool any = false;
  for (const ReportRun& run : runs) {
    LineSeries curve = curve_of(run, key);
    any = any || std::ranges::any_of(curve.y, [](double y) { return y != 0.0; });
    if (runs.size() == 1) curve.name.clear();  // which would be a legend of one line
    chart.series.push_back(smooth ? smoothed(std::move(curve), std::max<size_t>(1, run.lines.size() / 100))
                                  : std::move(curve));
  }
  return any ? figure(line_chart_svg(chart)) : std::string();
}

std::string loss_plot(const ReportRun& run) {
  LineChart chart{.frame = {.title = "Loss, nats per token", .x_label = "step", .inside_page = true}};
  chart.series.push_back(curve_of(run, "loss"));
  chart.series.back().name = "training";
  LineSeries valid = curve_of(run, "valid_loss");
  if (!valid.x.empty()) {
    chart.series.push_back(std::move(valid));
    chart.series.back().name = "validation";
  }
  return figure(line_chart_svg(chart));
}

// The loads of one layer's experts, as multiples of their mean.
std::vector<double> load_ratios(const Json& of_layer) {
  std::vector<double> out;
  double sum = 0.0;
  for (const Json& value : of_layer.as_array()) {
    out.push_back(value.as_double());
    sum += out.back();
  }
  for (double& value : out) value = sum > 0.0 ? value * static_cast<double>(out.size()) / sum : 0.0;
  return out;
}

// Load of every expert of one layer over the steps.
std::string load_map(const ReportRun& run, size_t layer) {
  std::vector<const Json*> lines;
  for (const Json& line : run.lines) {
    const Json* load = line.find("expert_load");
    if (load != nullptr && load->is_array() && layer < load->as_array().size()) lines.push_back(&line);
  }
  if (lines.empty()) return {};
  HeatMap map{.frame = {.title = str("Expert load, MoE layer ", layer),
                        .x_label = "step",
                        .y_label = "expert",
                        .inside_page = true},
              .low = 0.0,
              .high = 3.0,
              .scale_label = "multiples of the mean"};
  const size_t every = (lines.size() + 99) / 100;  // at most a hundred columns
  std::vector<std::vector<double>> columns;
  for (size_t i = 0; i < lines.size(); i += every) {
    map.columns.push_back(str(static_cast<int64_t>(number_in(*lines[i], "step"))));
    columns.push_back(load_ratios(lines[i]->find("expert_load")->as_array()[layer]));
  }
  for (size_t expert = 0; expert < columns.front().size(); ++expert) {
    map.rows.push_back(str(expert));
    for (const std::vector<double>& column : columns) {
      map.values.push_back(expert < column.size() ? column[expert] : kNothing);
    }
  }
  return figure(heat_map_svg(map));
}

size_t moe_layers(const ReportRun& run) {
  for (const Json& line : run.lines) {
    const Json* load = line.find("expert_load");
    if (load != nullptr && load->is_array()) return load->as_array().size();
  }
  return 0;
}

std::string cell(double value, int decimals) {
  return str("<td class=\"n\">", std::isfinite(value) ? fixed(value, decimals) : std::string("-"), "</td>");
}

double last_of(const LineSeries& curve) {
  return curve.y.empty() ? kNothing : curve.y.back();
}

double median_of(LineSeries curve) {
  if (curve.y.empty()) return kNothing;
  const auto middle = curve.y.begin() + static_cast<std::ptrdiff_t>(curve.y.size() / 2);
  std::nth_element(curve.y.begin(), middle, curve.y.end());
  return *middle;
}

std::string summary_table(std::span<const ReportRun> runs) {
  std::string out =
      "<table><tr><th>run</th><th>training loss</th><th>validation loss</th><th>perplexity</th><th>cache elements per "
      "token</th><th>parameters</th><th>active</th><th>tokens/s</th><th>fullest expert / mean</th><th>dropped "
      "%</th></tr>\n";
  for (const ReportRun& run : runs) {
    const double valid = last_of(curve_of(run, "valid_loss"));
    const LineSeries loss = smoothed(curve_of(run, "loss"), 20);
    out += str("<tr><td>",
               escape_xml(run.name),
               "</td>",
               cell(last_of(loss), 4),
               cell(valid, 4),
               cell(std::exp(valid), 2),
               "<td class=\"n\">",
               with_commas(compare_caches(run.config).elements_per_token),
               "</td><td class=\"n\">",
               with_commas(run.parameters),
               "</td><td class=\"n\">",
               with_commas(count_parameters(run.config).active),
               "</td>",
               cell(median_of(curve_of(run, "tokens_per_s")), 0),
               cell(last_of(smoothed(curve_of(run, "load_ratio"), 20)), 2),
               cell(100.0 * last_of(smoothed(curve_of(run, "dropped"), 20)), 2),
               "</tr>\n");
  }
  return out + "</table>\n";
}

std::string statistics_table(const Json& statistics) {
  if (!statistics.is_object()) return {};
  std::string out =
      "<h2>Corpus</h2>\n<table><tr><th>set</th><th>tokens</th><th>bytes per token</th><th>documents</th></tr>\n";
  for (const auto& [name, set] : statistics.as_object()) {
    const Json* documents = set.find("documents");
    std::string verdicts;
    if (documents != nullptr && documents->is_object()) {
      for (const auto& [verdict, count] : documents->as_object()) {
        if (!count.is_int() || count.as_int() == 0) continue;
        verdicts += str(verdicts.empty() ? "" : ", ", verdict, " ", with_commas(count.as_int()));
      }
    }
    out += str("<tr><td>",
               escape_xml(name),
               "</td><td class=\"n\">",
               with_commas(static_cast<int64_t>(number_in(set, "tokens"))),
               "</td>",
               cell(number_in(set, "bytes_per_token"), 2),
               "<td>",
               escape_xml(verdicts),
               "</td></tr>\n");
  }
  return out + "</table>\n";
}

std::string one_run(const ReportRun& run) {
  const std::span<const ReportRun> runs(&run, 1);
  std::string out = loss_plot(run);
  out += plot_of(runs, "lr", "Learning rate");
  out += plot_of(runs, "grad_norm", "Gradient norm before clipping", false, true);
  out += plot_of(runs, "tokens_per_s", "Tokens per second, mean so far");
  out += plot_of(runs, "load_ratio", "Fullest expert over the mean, worst layer");
  out += plot_of(runs, "dropped", "Share of assignments dropped");
  out += plot_of(runs, "expert_balance", "Expert balance loss (with its factor, summed over layers)");
  out += plot_of(runs, "device_balance", "Device balance loss");
  out += plot_of(runs, "communication_balance", "Communication balance loss");
  out += plot_of(runs, "sequence_balance", "Sequence-wise balance loss");
  out += plot_of(runs, "mtp", "Multi-token prediction loss");
  for (size_t layer = 0; layer < moe_layers(run); ++layer) out += load_map(run, layer);
  return out;
}

}  // namespace

std::string html_report(std::string_view title, std::span<const ReportRun> runs) {
  std::string body = summary_table(runs);
  if (runs.size() == 1) {
    body += one_run(runs.front());
  } else {
    body += plot_of(runs, "loss", "Training loss (smoothed), nats per token", true);
    body += plot_of(runs, "valid_loss", "Validation loss, nats per token");
    body += plot_of(runs, "grad_norm", "Gradient norm before clipping (smoothed)", true, true);
    body += plot_of(runs, "load_ratio", "Fullest expert over the mean, worst layer (smoothed)", true);
    body += plot_of(runs, "dropped", "Share of assignments dropped (smoothed)", true);
  }
  if (!runs.empty()) {
    body += statistics_table(runs.front().statistics);
    body += str("<h2>Recipe",
                runs.size() > 1 ? " of the first run" : "",
                "</h2>\n<pre>",
                escape_xml(runs.front().recipe.dump(2)),
                "</pre>\n");
  }
  return html_page(title, body);
}

}  // namespace lathe::train
