#include "lathe/base/svg_canvas.h"

#include <algorithm>
#include <array>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe {

std::string escape_xml(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = decode_utf8(text, i);
    if (c == U'&') {
      out += "&amp;";
    } else if (c == U'<') {
      out += "&lt;";
    } else if (c == U'>') {
      out += "&gt;";
    } else if (c == U'"') {
      out += "&quot;";
    } else if (c == U'\'') {
      out += "&#39;";
    } else {
      const bool forbidden = (c < 0x20 && c != U'\t' && c != U'\n') || c == 0xFFFE || c == 0xFFFF;
      append_utf8(out, forbidden ? char32_t{0xFFFD} : c);
    }
  }
  return out;
}

namespace svg {

namespace {

// Okabe and Ito's colours: told apart with every common colour blindness. The yellow is too light for lines on white
// and is a darker one there; on dark ground blue, vermilion and black are lightened.
struct SeriesColour {
  const char* light;
  const char* dark;
  const char* dash;
};

constexpr std::array<SeriesColour, kColours> kSeriesColours = {{
    {"#0072b2", "#4aa8e0", "none"},
    {"#d55e00", "#f5894a", "7 3"},
    {"#009e73", "#2fc79b", "2 3"},
    {"#b3528c", "#dd8fbd", "9 3 2 3"},
    {"#a67c00", "#e5b92e", "4 2"},
    {"#2d9ad6", "#8fd0f5", "12 4"},
    {"#333333", "#d9d9d9", "1 2"},
    {"#7a5195", "#b795cf", "6 2 1 2 1 2"},
}};

std::string style() {
  std::string out =
      "<style>"
      ".lathe-chart{color:#1c1f23;font-family:system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",Arial,sans-serif;"
      "font-size:12px}"
      ".lathe-chart text{fill:currentColor}"
      ".lathe-chart .ground{fill:#fff}"
      ".lathe-chart .title{font-size:15px;font-weight:600}"
      ".lathe-chart .soft{fill-opacity:.72}"
      ".lathe-chart .axis{stroke:currentColor;stroke-opacity:.55;fill:none}"
      ".lathe-chart .grid{stroke:currentColor;stroke-opacity:.13;fill:none}"
      ".lathe-chart .none{fill:none;stroke:currentColor;stroke-opacity:.3;stroke-dasharray:2 2}"
      ".lathe-chart .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
      ".lathe-chart text.on-dark{fill:#fff}.lathe-chart text.on-light{fill:#111}";
  std::string dark;
  for (int i = 0; i < kColours; ++i) {
    const SeriesColour& colour = kSeriesColours[static_cast<size_t>(i)];
    out += str(".lathe-chart .s", i, "{stroke:", colour.light, ";fill:", colour.light, ";stroke-dasharray:none}");
    out += str(".lathe-chart .line.s", i, "{fill:none;stroke-dasharray:", colour.dash, "}");
    dark += str(".lathe-chart .s", i, "{stroke:", colour.dark, ";fill:", colour.dark, "}");
    dark += str(".lathe-chart .line.s", i, "{fill:none}");
  }
  out += ".lathe-chart .line.again{stroke-dasharray:14 3 3 3}";
  out +=
      "@media (prefers-color-scheme:dark){.lathe-chart{color:#e4e7eb}.lathe-chart .ground{fill:#15181c}" + dark + "}";
  out += "@media print{.lathe-chart{color:#000}.lathe-chart .ground{fill:#fff}}";
  return out + "</style>\n";
}

double nice_step(double span, int count) {
  const double raw = span / std::max(count, 1);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double mantissa = raw / power;
  if (mantissa <= 1.0) return power;
  if (mantissa <= 2.0) return 2.0 * power;
  return mantissa <= 5.0 ? 5.0 * power : 10.0 * power;
}

void linear_ticks(Axis& axis, int count) {
  const double step = nice_step(axis.high - axis.low, count);
  const double first = std::floor(axis.low / step * (1.0 + 1e-12));
  const double last = std::ceil(axis.high / step * (1.0 - 1e-12));
  // A span near the largest double, or of a few last places, has no round ticks.
  if (!std::isfinite(first) || !std::isfinite(last) || last - first > 1000.0 || last <= first) {
    axis.ticks = {axis.low, axis.high};
    return;
  }
  axis.low = first * step;
  axis.high = last * step;
  const int steps = static_cast<int>(last - first);
  for (int i = 0; i <= steps; ++i) axis.ticks.push_back((first + i) * step);
}

void log_ticks(Axis& axis, int count) {
  const double first = std::floor(std::log10(axis.low) + 1e-9);
  const double last = std::ceil(std::log10(axis.high) - 1e-9);
  const int decades = static_cast<int>(last - first);
  const int stride = std::max(1, (decades + count - 1) / std::max(count, 1));
  std::vector<double> factors = {1.0};
  if (decades <= 1) {
    factors = {1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0};
  } else if (decades <= 3) {
    factors = {1.0, 2.0, 5.0};
  }
  for (int i = 0; i <= decades; i += stride) {
    const double power = first + i;
    for (const double factor : factors) {
      // Division of exact powers keeps 0.001 what it is written as.
      const double value = power < 0.0 ? factor / std::pow(10.0, -power) : factor * std::pow(10.0, power);
      if (value >= axis.low * (1.0 - 1e-9) && value <= axis.high * (1.0 + 1e-9)) axis.ticks.push_back(value);
    }
  }
  if (axis.ticks.size() < 2) axis.ticks = {axis.low, axis.high};
}

}  // namespace

bool Axis::shows(double value) const {
  return std::isfinite(value) && (!log || value > 0.0);
}

double Axis::place(double value) const {
  if (log) return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
  // Halves, because the difference of two large values may not be finite.
  return (value / 2 - low / 2) / (high / 2 - low / 2);
}

Axis make_axis(double low, double high, bool log, int count) {
  if (!std::isfinite(low) || !std::isfinite(high) || (log && low <= 0.0)) {
    low = log ? 1.0 : 0.0;
    high = log ? 10.0 : 1.0;
  }
  if (low > high) std::swap(low, high);
  constexpr double kLeast = 1e-300;  // smaller ones are of no use and have no exact powers of ten
  if (log) {
    low = std::max(low, kLeast);
    high = std::max(high, kLeast);
    if (high <= low * (1.0 + 1e-9)) {
      low /= 2.0;
      high *= 2.0;
    }
    high = std::min(high, std::numeric_limits<double>::max());
  } else if (high - low <= std::max(std::max(std::fabs(low), std::fabs(high)) * 1e-12, kLeast)) {
    const double around = std::fabs(low) <= kLeast ? 1.0 : std::fabs(low) * 0.1;
    low -= around;
    high += around;
  }
  Axis axis{.low = low, .high = high, .log = log, .ticks = {}};
  if (log) {
    log_ticks(axis, count);
  } else {
    linear_ticks(axis, count);
  }
  return axis;
}

std::vector<std::string> tick_texts(const Axis& axis) {
  double largest = 0.0;
  double step = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < axis.ticks.size(); ++i) {
    largest = std::max(largest, std::fabs(axis.ticks[i]));
    if (i > 0) step = std::min(step, axis.ticks[i] - axis.ticks[i - 1]);
  }
  std::vector<std::string> out;
  constexpr std::array<std::pair<double, const char*>, 4> kUnits = {{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}};
  for (const double tick : axis.ticks) {
    // A log axis has another unit for every tick; a linear one has the unit of its end.
    const double size = axis.log ? std::fabs(tick) : largest;
    if (size >= 1e15 || (size > 0.0 && size < 1e-3)) {
      out.push_back(tick == 0.0 ? "0" : str(tick));
      continue;
    }
    double unit = 1.0;
    const char* suffix = "";
    if (size >= 1e4 || (axis.log && size >= 1e3)) {
      for (const auto& [value, name] : kUnits) {
        if (size < value) continue;
        unit = value;
        suffix = name;
        break;
      }
    }
    // Decimals until the step, or on a log axis the tick itself, is written exactly.
    const double exact = (axis.log ? std::fabs(tick) : step) / unit;
    int decimals = 0;
    double scaled = exact;
    while (decimals < 6 && std::fabs(scaled - std::round(scaled)) > 1e-6 * std::max(scaled, 1e-3)) {
      scaled *= 10.0;
      ++decimals;
    }
    out.push_back(tick == 0.0 ? std::string("0") : fixed(tick / unit, decimals) + suffix);
  }
  return out;
}

void Range::add(double value) {
  if (!std::isfinite(value) || (positive_ && value <= 0.0)) return;
  low_ = any_ ? std::min(low_, value) : value;
  high_ = any_ ? std::max(high_, value) : value;
  any_ = true;
}

std::string number(double value) {
  if (!std::isfinite(value)) return "0";
  std::string text = fixed(value, 1);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

double text_width(std::string_view text, double size) {
  double width = 0.0;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = decode_utf8(text, i);
    if (c >= 0x1100) {
      width += 1.0;  // East Asian and symbols: full width
    } else if (std::u32string_view(U"iljtfrI.,:;'|!()[] ").find(c) != std::u32string_view::npos) {
      width += 0.36;
    } else if (std::u32string_view(U"mwMW@%").find(c) != std::u32string_view::npos) {
      width += 0.92;
    } else {
      width += c >= U'A' && c <= U'Z' ? 0.70 : 0.60;
    }
  }
  return width * size;
}

std::string cut_text(std::string_view text, double width, double size) {
  if (text_width(text, size) <= width) return std::string(text);
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    (void)decode_utf8(text, i);
    if (text_width(text.substr(0, i), size) + size > width) {
      end = begin;
      break;
    }
  }
  return std::string(text.substr(0, end)) + "…";
}

double title_bottom(const ChartFrame& frame) {
  return frame.title.empty() ? 14.0 : 36.0;
}

std::string series_class(size_t index) {
  return str("s", index % kColours, index >= kColours ? " again" : "");
}

Canvas::Canvas(const ChartFrame& frame, double height) {
  const std::string size = str(number(frame.width), "\" height=\"", number(height));
  out_ = str("<svg",
             frame.inside_page ? "" : " xmlns=\"http://www.w3.org/2000/svg\"",
             " class=\"lathe-chart\" role=\"img\" width=\"",
             size,
             "\" viewBox=\"0 0 ",
             number(frame.width),
             " ",
             number(height),
             "\" aria-label=\"",
             escape_xml(frame.title),
             "\">\n<title>",
             escape_xml(frame.title),
             "</title>\n");
  if (!frame.description.empty()) out_ += str("<desc>", escape_xml(frame.description), "</desc>\n");
  out_ += style();
  rect({.left = 0.0, .top = 0.0, .right = frame.width, .bottom = height}, "class=\"ground\"");
  if (!frame.title.empty()) {
    text(frame.width / 2, 22.0, cut_text(frame.title, frame.width - 20.0, 15.0), Anchor::kMiddle, "class=\"title\"");
  }
}

void Canvas::line(double x1, double y1, double x2, double y2, std::string_view classes) {
  out_ += str("<line x1=\"", number(x1), "\" y1=\"", number(y1), "\" x2=\"", number(x2), "\" y2=\"", number(y2));
  out_ += str("\" class=\"", classes, "\"/>\n");
}

void Canvas::rect(const Box& box, std::string_view attributes, std::string_view tooltip) {
  out_ += str("<rect x=\"", number(box.left), "\" y=\"", number(box.top), "\" width=\"", number(box.width()));
  out_ += str("\" height=\"", number(box.height()), "\" ", attributes);
  out_ += tooltip.empty() ? "/>\n" : str("><title>", escape_xml(tooltip), "</title></rect>\n");
}

void Canvas::circle(double x, double y, double radius, std::string_view classes, std::string_view tooltip) {
  out_ += str("<circle cx=\"", number(x), "\" cy=\"", number(y), "\" r=\"", number(radius), "\" class=\"", classes);
  out_ += str("\"><title>", escape_xml(tooltip), "</title></circle>\n");
}

void Canvas::path(std::string_view d, std::string_view classes) {
  if (!d.empty()) out_ += str("<path d=\"", d, "\" class=\"", classes, "\"/>\n");
}

void Canvas::text(double x, double y, std::string_view text, Anchor anchor, std::string_view attributes) {
  constexpr std::array<const char*, 3> kAnchors = {"start", "middle", "end"};
  out_ += str("<text x=\"", number(x), "\" y=\"", number(y), "\" text-anchor=\"");
  out_ += str(kAnchors[static_cast<size_t>(anchor)], attributes.empty() ? "\"" : "\" ", attributes, ">");
  out_ += str(escape_xml(text), "</text>\n");
}

double Canvas::legend(const std::vector<std::string>& names, double left, double right, double top, bool lines) {
  constexpr double kRow = 18.0;
  const double swatch = lines ? 30.0 : 12.0;
  double x = left;
  double y = top + 12.0;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string name = cut_text(names[i], right - left - swatch - 6.0);
    const double width = swatch + 6.0 + text_width(name) + 16.0;
    if (x > left && x + width > right + 16.0) {
      x = left;
      y += kRow;
    }
    if (lines) {
      line(x, y - 4.0, x + swatch, y - 4.0, "line " + series_class(i));
    } else {
      rect({.left = x, .top = y - 10.0, .right = x + swatch, .bottom = y + 2.0},
           str("class=\"", series_class(i), "\""));
    }
    text(x + swatch + 6.0, y, name, Anchor::kStart);
    x += width;
  }
  return y + 10.0;
}

void Canvas::y_axis(const Axis& axis, const std::vector<std::string>& texts, const Box& plot) {
  for (size_t i = 0; i < axis.ticks.size(); ++i) {
    const double y = plot.bottom - axis.place(axis.ticks[i]) * plot.height();
    line(plot.left, y, plot.right, y, "grid");
    text(plot.left - 7.0, y + 4.0, texts[i], Anchor::kEnd, "class=\"soft\"");
  }
  line(plot.left, plot.top, plot.left, plot.bottom, "axis");
}

void Canvas::x_axis(const Axis& axis, const std::vector<std::string>& texts, const Box& plot) {
  double free_from = -1e9;  // texts that would touch the one before are left out
  for (size_t i = 0; i < axis.ticks.size(); ++i) {
    const double x = plot.left + axis.place(axis.ticks[i]) * plot.width();
    line(x, plot.bottom, x, plot.bottom + 4.0, "axis");
    const double half = text_width(texts[i]) / 2;
    if (x - half < free_from) continue;
    free_from = x + half + 6.0;
    text(x, plot.bottom + 18.0, texts[i], Anchor::kMiddle, "class=\"soft\"");
  }
  line(plot.left, plot.bottom, plot.right, plot.bottom, "axis");
}

void Canvas::axis_labels(const ChartFrame& frame, const Box& plot, double x_label_y) {
  const double middle_x = (plot.left + plot.right) / 2;
  const double middle_y = (plot.top + plot.bottom) / 2;
  if (!frame.x_label.empty()) {
    text(middle_x, x_label_y, cut_text(frame.x_label, frame.width - 20.0), Anchor::kMiddle);
  }
  if (!frame.y_label.empty()) {
    const std::string turn = str("transform=\"rotate(-90 16 ", number(middle_y), ")\"");
    text(16.0, middle_y, cut_text(frame.y_label, plot.height() + 20.0), Anchor::kMiddle, turn);
  }
}

std::string Canvas::finish() {
  out_ += "</svg>\n";
  return std::move(out_);
}

}  // namespace svg

}  // namespace lathe
