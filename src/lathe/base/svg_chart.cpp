#include "lathe/base/svg_chart.h"

#include <algorithm>

#include "lathe/base/check.h"
#include "lathe/base/str.h"
#include "lathe/base/svg_canvas.h"

namespace lathe {

namespace {

using svg::Anchor;
using svg::Axis;
using svg::Box;
using svg::Canvas;

constexpr size_t kMarkedPoints = 30;  // lines of up to so many points show each of them

double widest(const std::vector<std::string>& texts) {
  double width = 0.0;
  for (const std::string& text : texts) width = std::max(width, svg::text_width(text));
  return width;
}

// Left edge of the plot: room for the axis label and the tick texts.
double left_edge(const ChartFrame& frame, const std::vector<std::string>& tick_texts) {
  return (frame.y_label.empty() ? 16.0 : 34.0) + widest(tick_texts) + 8.0;
}

// A line as path data with at most four points for each column of one user unit.
class PathBuilder {
 public:
  void add(double x, double y) {
    const double column = std::floor(x);
    if (!any_ || column != column_) {
      flush();
      if (gap_ && any_) pen_down_ = false;
      column_ = column;
      first_ = low_ = high_ = last_ = {x, y};
      any_ = true;
      pending_ = true;
    } else {
      if (y < low_.y) low_ = {x, y};
      if (y > high_.y) high_ = {x, y};
      last_ = {x, y};
    }
    gap_ = false;
  }

  // Ends the line here, unless the next point falls into the same column, where nobody could see it.
  void gap() { gap_ = true; }

  std::string finish() {
    flush();
    return std::move(path_);
  }

 private:
  struct Point {
    double x = 0.0;
    double y = 0.0;

    bool operator==(const Point&) const = default;
  };

  void flush() {
    if (!pending_) return;
    pending_ = false;
    const bool low_first = low_.x <= high_.x;
    emit(first_);
    const Point between_a = low_first ? low_ : high_;
    const Point between_b = low_first ? high_ : low_;
    if (between_a != first_ && between_a != last_) emit(between_a);
    if (between_b != first_ && between_b != last_ && between_b != between_a) emit(between_b);
    if (last_ != first_) emit(last_);
    // A point between two gaps is a line of no length, which round line ends show as a dot.
    if (gap_ && alone_) path_ += "h0";
  }

  void emit(const Point& p) {
    alone_ = !pen_down_;
    path_ += str(pen_down_ ? "L" : "M", svg::number(p.x), " ", svg::number(p.y));
    pen_down_ = true;
  }

  std::string path_;
  double column_ = 0.0;
  Point first_, low_, high_, last_;
  bool any_ = false;
  bool pending_ = false;
  bool pen_down_ = false;
  bool alone_ = false;
  bool gap_ = false;
};

void draw_series(
    Canvas& canvas, const LineSeries& series, size_t index, const Axis& x_axis, const Axis& y_axis, const Box& plot) {
  PathBuilder path;
  const std::string classes = svg::series_class(index);
  std::vector<std::pair<size_t, Box>> marks;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!x_axis.shows(series.x[i]) || !y_axis.shows(series.y[i])) {
      path.gap();
      continue;
    }
    const double x = plot.left + x_axis.place(series.x[i]) * plot.width();
    const double y = plot.bottom - y_axis.place(series.y[i]) * plot.height();
    path.add(x, y);
    if (series.x.size() <= kMarkedPoints) marks.push_back({i, {.left = x, .top = y}});
  }
  path.gap();
  canvas.path(path.finish(), "line " + classes);
  for (const auto& [i, at] : marks) {
    canvas.circle(at.left,
                  at.top,
                  2.6,
                  classes,
                  str(series.name, series.name.empty() ? "" : ": ", series.x[i], ", ", series.y[i]));
  }
}

std::vector<std::string> names_of(const auto& all_series) {
  std::vector<std::string> names;
  for (const auto& series : all_series) names.push_back(series.name);
  return names;
}

// Decimals that write every value exactly, at most three.
int needed_decimals(const BarChart& chart) {
  int decimals = 0;
  for (const BarSeries& series : chart.series) {
    for (const double value : series.values) {
      double scaled = std::isfinite(value) ? std::fabs(value) : 0.0;
      for (int i = 0; i < 3 && std::fabs(scaled - std::round(scaled)) > 1e-9 * std::max(scaled, 1.0); ++i) {
        scaled *= 10.0;
        decimals = std::max(decimals, i + 1);
      }
    }
  }
  return decimals;
}

std::string bar_value(double value, int decimals) {
  return std::fabs(value) >= 1e15 ? str(value) : fixed(value, decimals);
}

void draw_bars(Canvas& canvas, const BarChart& chart, const Axis& axis, const Box& plot) {
  const auto categories = static_cast<double>(chart.categories.size());
  const auto series = static_cast<double>(chart.series.size());
  const double slot = plot.width() / std::max(categories, 1.0);
  const double bar = slot * 0.8 / std::max(series, 1.0);
  const int decimals = chart.decimals >= 0 ? chart.decimals : needed_decimals(chart);
  double widest_value = 0.0;
  for (const BarSeries& s : chart.series) {
    for (const double v : s.values)
      widest_value = std::max(widest_value, svg::text_width(bar_value(v, decimals), 10.0));
  }
  const bool write_values = widest_value <= bar + 8.0 / std::max(series, 1.0);
  const double zero = plot.bottom - axis.place(std::clamp(0.0, axis.low, axis.high)) * plot.height();
  for (size_t s = 0; s < chart.series.size(); ++s) {
    for (size_t c = 0; c < chart.categories.size(); ++c) {
      const double value = chart.series[s].values[c];
      if (!axis.shows(value)) continue;
      const double left = plot.left + slot * (static_cast<double>(c) + 0.1) + bar * static_cast<double>(s);
      const double end = plot.bottom - axis.place(value) * plot.height();
      const std::string text = bar_value(value, decimals);
      const std::string tooltip =
          str(chart.categories[c], chart.series[s].name.empty() ? "" : ", ", chart.series[s].name, ": ", text);
      canvas.rect({.left = left + bar * 0.04,
                   .top = std::min(end, zero),
                   .right = left + bar * 0.96,
                   .bottom = std::max(end, zero)},
                  str("class=\"", svg::series_class(s), "\" stroke-width=\"0\""),
                  tooltip);
      if (!write_values) continue;
      canvas.text(left + bar / 2, value >= 0.0 ? end - 4.0 : end + 12.0, text, Anchor::kMiddle, "font-size=\"10\"");
    }
  }
  canvas.line(plot.left, zero, plot.right, zero, "axis");
}

// Names below the bars: level where they fit, turned where not; every n-th when even that is too tight.
void draw_categories(Canvas& canvas, const BarChart& chart, const Box& plot, bool turned) {
  const double slot = plot.width() / std::max(static_cast<double>(chart.categories.size()), 1.0);
  const auto every = static_cast<size_t>(turned ? std::max(1.0, std::ceil(14.0 / slot)) : 1.0);
  for (size_t c = 0; c < chart.categories.size(); c += every) {
    const double x = plot.left + slot * (static_cast<double>(c) + 0.5);
    if (!turned) {
      canvas.text(x, plot.bottom + 18.0, chart.categories[c], Anchor::kMiddle, "class=\"soft\"");
      continue;
    }
    const double y = plot.bottom + 12.0;
    canvas.text(x + 4.0,
                y,
                svg::cut_text(chart.categories[c], 110.0),
                Anchor::kEnd,
                str("class=\"soft\" transform=\"rotate(-45 ", svg::number(x + 4.0), " ", svg::number(y), ")\""));
  }
}

}  // namespace

std::string line_chart_svg(const LineChart& chart) {
  svg::Range x_range(chart.log_x);
  svg::Range y_range(chart.log_y);
  for (const LineSeries& series : chart.series) {
    LATHE_CHECK(series.x.size() == series.y.size(), "series ", series.name);
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) continue;
      if ((chart.log_x && series.x[i] <= 0.0) || (chart.log_y && series.y[i] <= 0.0)) continue;
      x_range.add(series.x[i]);
      y_range.add(series.y[i]);
    }
  }
  if (chart.y_from_zero && !chart.log_y) y_range.add(0.0);
  const ChartFrame& frame = chart.frame;
  const Axis y_axis = svg::make_axis(y_range.low(), y_range.high(), chart.log_y, 6);
  const std::vector<std::string> y_texts = svg::tick_texts(y_axis);
  Canvas canvas(frame, frame.height);
  Box plot{.left = left_edge(frame, y_texts),
           .top = svg::title_bottom(frame),
           .right = frame.width - 22.0,
           .bottom = frame.height - (frame.x_label.empty() ? 28.0 : 46.0)};
  const bool named = chart.series.size() > 1 || (chart.series.size() == 1 && !chart.series.front().name.empty());
  if (named) plot.top = canvas.legend(names_of(chart.series), plot.left, plot.right, plot.top, true);
  const Axis x_axis = svg::make_axis(x_range.low(), x_range.high(), chart.log_x, static_cast<int>(plot.width() / 80.0));
  canvas.y_axis(y_axis, y_texts, plot);
  canvas.x_axis(x_axis, svg::tick_texts(x_axis), plot);
  for (size_t i = 0; i < chart.series.size(); ++i) draw_series(canvas, chart.series[i], i, x_axis, y_axis, plot);
  canvas.axis_labels(frame, plot, frame.height - 10.0);
  return canvas.finish();
}

std::string bar_chart_svg(const BarChart& chart) {
  svg::Range range;
  range.add(0.0);
  for (const BarSeries& series : chart.series) {
    LATHE_CHECK(series.values.size() == chart.categories.size(), "series ", series.name);
    for (const double value : series.values) range.add(value);
  }
  const ChartFrame& frame = chart.frame;
  // Without any height there is still an axis upwards.
  const Axis axis = svg::make_axis(range.low(), range.high() == range.low() ? 1.0 : range.high(), false, 6);
  const std::vector<std::string> texts = svg::tick_texts(axis);
  Canvas canvas(frame, frame.height);
  Box plot{.left = left_edge(frame, texts), .top = svg::title_bottom(frame), .right = frame.width - 18.0};
  if (chart.series.size() > 1) {
    plot.top = canvas.legend(names_of(chart.series), plot.left, plot.right, plot.top, false);
  }
  plot.top += 8.0;  // for the values at the highest bars
  const double slot = plot.width() / std::max(static_cast<double>(chart.categories.size()), 1.0);
  const double widest_name = std::min(widest(chart.categories), 110.0);
  const bool turned = widest(chart.categories) > slot - 6.0;
  plot.bottom = frame.height - (frame.x_label.empty() ? 10.0 : 28.0) - (turned ? 18.0 + widest_name * 0.72 : 18.0);
  canvas.y_axis(axis, texts, plot);
  draw_bars(canvas, chart, axis, plot);
  draw_categories(canvas, chart, plot, turned);
  canvas.axis_labels(frame, plot, frame.height - 10.0);
  return canvas.finish();
}

std::string html_page(std::string_view title, std::string_view body) {
  const std::string name = escape_xml(title);
  return str(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
      name,
      "</title>\n<style>:root{color-scheme:light dark}body{font-family:system-ui,sans-serif;line-height:1.5;"
      "max-width:60rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#1c1f23}figure{margin:1.5rem 0}"
      "svg{max-width:100%;height:auto}table{border-collapse:collapse;margin:1rem 0}"
      "td,th{padding:.15rem .7rem .15rem 0;text-align:left;border-bottom:1px solid #8886}"
      "td.n{text-align:right;font-variant-numeric:tabular-nums}pre{white-space:pre-wrap;font-size:.8rem}"
      "@media (prefers-color-scheme:dark){body{background:#15181c;color:#e4e7eb}}"
      "</style>\n</head>\n<body>\n<h1>",
      name,
      "</h1>\n",
      body,
      "</body>\n</html>\n");
}

std::string figure(std::string_view svg) {
  return str("<figure>\n", svg, "</figure>\n");
}

std::string chart_page(std::string_view title, std::span<const std::string> notes, std::span<const std::string> svgs) {
  std::string body;
  for (const std::string& note : notes) body += str("<p>", escape_xml(note), "</p>\n");
  for (const std::string& svg : svgs) body += figure(svg);
  return html_page(title, body);
}

}  // namespace lathe
