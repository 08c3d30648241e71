#include "lathe/train/svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "lathe/base/str.h"

namespace lathe::train {
namespace {

constexpr double kWidth = 760.0;
constexpr double kHeight = 300.0;
constexpr double kLeft = 70.0;
constexpr double kRight = 20.0;
constexpr double kTop = 30.0;
constexpr double kBottom = 45.0;
constexpr size_t kMaxPoints = 1000;
constexpr std::array<std::string_view, 8> kColours{
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#7f7f7f"};

struct Range {
  double least = std::numeric_limits<double>::infinity();
  double greatest = -std::numeric_limits<double>::infinity();

  void add(double value) {
    if (!std::isfinite(value)) return;
    least = std::min(least, value);
    greatest = std::max(greatest, value);
  }

  // Something to divide by, also for no or one value.
  void widen() {
    if (!(least <= greatest)) least = greatest = 0.0;
    if (least == greatest) {
      least -= 0.5;
      greatest += 0.5;
    }
  }
};

// 1, 2 or 5 times a power of ten, so that there are about `count` steps in the range.
double tick_step(double span, int count) {
  const double raw = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10.0 * power;
}

// The multiples of `step` in the range.
std::vector<double> ticks(const Range& range, double step) {
  std::vector<double> out;
  const double first = std::ceil(range.least / step - 1e-9);
  const auto count = static_cast<int64_t>(std::floor(range.greatest / step + 1e-9) - first);
  for (int64_t i = 0; i <= count; ++i) out.push_back((first + static_cast<double>(i)) * step);
  return out;
}

std::string number(double value) {
  if (value == 0.0) return "0";
  const double size = std::abs(value);
  if (size >= 1e6) return str(fixed(value / 1e6, size >= 1e7 ? 0 : 1), "M");
  if (size >= 1e4) return str(fixed(value / 1e3, 0), "k");
  if (size >= 100.0) return fixed(value, 0);
  if (size >= 0.01) {
    std::string text = fixed(value, size >= 10.0 ? 1 : 3);
    while (text.ends_with('0')) text.pop_back();
    if (text.ends_with('.')) text.pop_back();
    return text;
  }
  const int power = static_cast<int>(std::floor(std::log10(size)));
  return str(fixed(value / std::pow(10.0, power), 1), "e", power);
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view text, std::string_view more = "") {
  return str("<text x=\"",
             fixed(x, 1),
             "\" y=\"",
             fixed(y, 1),
             "\" text-anchor=\"",
             anchor,
             "\"",
             more,
             ">",
             escape_html(text),
             "</text>\n");
}

std::string line_between(double x1, double y1, double x2, double y2) {
  return str("<line class=\"grid\" x1=\"",
             fixed(x1, 1),
             "\" y1=\"",
             fixed(y1, 1),
             "\" x2=\"",
             fixed(x2, 1),
             "\" y2=\"",
             fixed(y2, 1),
             "\"/>\n");
}

struct Frame {
  Range x;
  Range y;
  bool log_y = false;

  double px(double value) const {
    return kLeft + (value - x.least) / (x.greatest - x.least) * (kWidth - kLeft - kRight);
  }

  double py(double value) const {
    return kHeight - kBottom - (value - y.least) / (y.greatest - y.least) * (kHeight - kTop - kBottom);
  }
};

double height_of(double value, bool log_y) {
  if (!log_y) return value;
  return value > 0.0 ? std::log10(value) : std::numeric_limits<double>::quiet_NaN();
}

// Indices of the points to draw.
std::vector<size_t> thinned(const Curve& curve) {
  const size_t count = std::min(curve.x.size(), curve.y.size());
  std::vector<size_t> out;
  if (count <= kMaxPoints) {
    for (size_t i = 0; i < count; ++i) out.push_back(i);
    return out;
  }
  const size_t pieces = kMaxPoints / 2;
  for (size_t piece = 0; piece < pieces; ++piece) {
    const size_t begin = piece * count / pieces;
    const size_t end = (piece + 1) * count / pieces;
    size_t least = begin;
    size_t greatest = begin;
    for (size_t i = begin; i < end; ++i) {
      if (curve.y[i] < curve.y[least]) least = i;
      if (curve.y[i] > curve.y[greatest]) greatest = i;
    }
    out.push_back(std::min(least, greatest));
    if (least != greatest) out.push_back(std::max(least, greatest));
  }
  return out;
}

std::string curve_path(const Curve& curve, const Frame& frame) {
  std::string path;
  bool open = false;
  for (const size_t i : thinned(curve)) {
    const double y = height_of(curve.y[i], frame.log_y);
    if (!std::isfinite(y) || !std::isfinite(curve.x[i])) {
      open = false;
      continue;
    }
    path += str(open ? "L" : "M", fixed(frame.px(curve.x[i]), 1), " ", fixed(frame.py(y), 1));
    open = true;
  }
  return path;
}

std::string axes(const Frame& frame, const LinePlot& plot) {
  std::string out;
  const double y_step = frame.log_y ? std::max(1.0, tick_step(frame.y.greatest - frame.y.least, 5))
                                    : tick_step(frame.y.greatest - frame.y.least, 5);
  for (const double y : ticks(frame.y, y_step)) {
    out += line_between(kLeft, frame.py(y), kWidth - kRight, frame.py(y));
    out += text_at(kLeft - 6.0, frame.py(y) + 4.0, "end", number(frame.log_y ? std::pow(10.0, y) : y));
  }
  for (const double x : ticks(frame.x, tick_step(frame.x.greatest - frame.x.least, 8))) {
    out += line_between(frame.px(x), kTop, frame.px(x), kHeight - kBottom);
    out += text_at(frame.px(x), kHeight - kBottom + 16.0, "middle", number(x));
  }
  out += text_at(kLeft, 18.0, "start", plot.title, " class=\"title\"");
  out += text_at((kLeft + kWidth - kRight) / 2.0, kHeight - 8.0, "middle", plot.x_label);
  return out;
}

std::string colour(double share, bool red_to_green) {
  const double t = std::clamp(share, 0.0, 1.0);
  const auto mix = [t](double a, double b) { return static_cast<int>(std::lround(a + (b - a) * t)); };
  if (!red_to_green) return str("rgb(", mix(245, 31), ',', mix(247, 90), ',', mix(250, 180), ')');
  // Through yellow.
  const int red = static_cast<int>(std::lround(t < 0.5 ? 215.0 : 215.0 + (40.0 - 215.0) * (2.0 * t - 1.0)));
  const int green =
      static_cast<int>(std::lround(t < 0.5 ? 60.0 + (200.0 - 60.0) * 2.0 * t : 200.0 - 30.0 * (2.0 * t - 1.0)));
  return str("rgb(", red, ',', green, ",70)");
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string svg_line_plot(const LinePlot& plot) {
  Frame frame;
  frame.log_y = plot.log_y;
  for (const Curve& curve : plot.curves) {
    for (size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i) {
      frame.x.add(curve.x[i]);
      frame.y.add(height_of(curve.y[i], plot.log_y));
    }
  }
  frame.x.widen();
  frame.y.widen();
  const size_t legend_rows = plot.curves.size() > 1 ? (plot.curves.size() + 3) / 4 : 0;
  const double height = kHeight + 18.0 * static_cast<double>(legend_rows);
  std::string out = str("<svg viewBox=\"0 0 ",
                        fixed(kWidth, 0),
                        " ",
                        fixed(height, 0),
                        "\" role=\"img\" aria-label=\"",
                        escape_html(plot.title),
                        "\">\n");
  out += axes(frame, plot);
  for (size_t i = 0; i < plot.curves.size(); ++i) {
    const std::string_view stroke = kColours[i % kColours.size()];
    out += str("<path class=\"curve\" stroke=\"", stroke, "\" d=\"", curve_path(plot.curves[i], frame), "\"/>\n");
    if (plot.curves.size() < 2) continue;
    const size_t row = i / 4;
    const double x = kLeft + static_cast<double>(i % 4) * 170.0;
    const double y = kHeight + 6.0 + 18.0 * static_cast<double>(row);
    out += str("<rect x=\"",
               fixed(x, 1),
               "\" y=\"",
               fixed(y - 9.0, 1),
               "\" width=\"12\" height=\"12\" fill=\"",
               stroke,
               "\"/>\n");
    out += text_at(x + 17.0, y + 1.0, "start", plot.curves[i].name);
  }
  return out + "</svg>\n";
}

std::string svg_heat_map(const HeatMap& map) {
  const size_t columns = std::max<size_t>(1, map.columns.size());
  const size_t rows = std::max<size_t>(1, map.rows.size());
  const double cell_w = (kWidth - kLeft - kRight) / static_cast<double>(columns);
  const double cell_h = std::clamp(260.0 / static_cast<double>(rows), 8.0, 26.0);
  const double bottom = kTop + cell_h * static_cast<double>(rows);
  std::string out = str("<svg viewBox=\"0 0 ",
                        fixed(kWidth, 0),
                        " ",
                        fixed(bottom + kBottom, 0),
                        "\" role=\"img\" aria-label=\"",
                        escape_html(map.title),
                        "\">\n");
  out += text_at(kLeft, 18.0, "start", map.title, " class=\"title\"");
  for (size_t r = 0; r < map.cells.size() && r < rows; ++r) {
    const double y = kTop + cell_h * static_cast<double>(r);
    for (size_t c = 0; c < map.cells[r].size() && c < columns; ++c) {
      const double value = map.cells[r][c];
      if (!std::isfinite(value)) continue;
      const double x = kLeft + cell_w * static_cast<double>(c);
      const double share = (value - map.least) / (map.greatest - map.least);
      out += str("<rect x=\"",
                 fixed(x, 1),
                 "\" y=\"",
                 fixed(y, 1),
                 "\" width=\"",
                 fixed(cell_w + 0.3, 1),
                 "\" height=\"",
                 fixed(cell_h + 0.3, 1),
                 "\" fill=\"",
                 colour(share, map.red_to_green),
                 "\"><title>",
                 escape_html(str(map.rows[r], ", ", map.columns[c], ": ", number(value))),
                 "</title></rect>\n");
      if (map.numbers) {
        out += text_at(x + cell_w / 2.0, y + cell_h / 2.0 + 4.0, "middle", number(value), " fill=\"#111\"");
      }
    }
    out += text_at(kLeft - 6.0, y + cell_h / 2.0 + 4.0, "end", r < map.rows.size() ? map.rows[r] : "");
  }
  // At most about a dozen labels.
  const size_t every = (columns + 11) / 12;
  for (size_t c = 0; c < map.columns.size(); c += every) {
    out += text_at(kLeft + cell_w * (static_cast<double>(c) + 0.5), bottom + 16.0, "middle", map.columns[c]);
  }
  out += text_at((kLeft + kWidth - kRight) / 2.0, bottom + 36.0, "middle", map.x_label);
  out += text_at(kWidth - kRight, 18.0, "end", map.y_label);
  return out + "</svg>\n";
}

std::string html_page(std::string_view title, std::string_view body) {
  return str(R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>)",
             escape_html(title),
             R"(</title>
<style>
:root { color-scheme: light dark; --ink: #222; --grid: #ddd; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --grid: #444; --page: #181818; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; margin: .5rem 0 1.5rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
svg text.title { font-weight: 600; font-size: 13px; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .curve { fill: none; stroke-width: 1.5; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
td, th { padding: .15rem .7rem .15rem 0; text-align: left; border-bottom: 1px solid var(--grid); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; font-size: 12px; }
</style>
</head>
<body>
<h1>)",
             escape_html(title),
             "</h1>\n",
             body,
             "</body>\n</html>\n");
}

}  // namespace lathe::train
