#include <algorithm>
#include <array>

#include "lathe/base/check.h"
#include "lathe/base/str.h"
#include "lathe/base/svg_canvas.h"

namespace lathe {

namespace {

using svg::Anchor;
using svg::Box;
using svg::Canvas;

struct Rgb {
  double r = 0.0;
  double g = 0.0;
  double b = 0.0;
};

// From dark blue through grey to yellow: lightness rises evenly, so that the order survives grey print and every colour
// blindness (the idea of the "cividis" map).
constexpr std::array<Rgb, 6> kScale = {{
    {0, 34, 78},
    {49, 68, 107},
    {102, 105, 112},
    {149, 143, 120},
    {201, 184, 103},
    {254, 232, 56},
}};

Rgb colour_at(double share) {
  const double place = std::clamp(share, 0.0, 1.0) * (kScale.size() - 1);
  const auto below = std::min(static_cast<size_t>(place), kScale.size() - 2);
  const double t = place - static_cast<double>(below);
  const Rgb& a = kScale[below];
  const Rgb& b = kScale[below + 1];
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

std::string hex(const Rgb& colour) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out = "#";
  for (const double channel : {colour.r, colour.g, colour.b}) {
    const auto value = static_cast<unsigned>(std::lround(channel));
    out += kDigits[value >> 4U];
    out += kDigits[value & 15U];
  }
  return out;
}

bool is_dark(const Rgb& colour) {
  return 0.299 * colour.r + 0.587 * colour.g + 0.114 * colour.b < 128.0;
}

double share_of(double value, double low, double high) {
  return high > low ? (value / 2 - low / 2) / (high / 2 - low / 2) : 0.5;
}

std::string cell_text(const HeatMap& map, size_t index) {
  if (!map.texts.empty()) return map.texts[index];
  const double value = map.values[index];
  if (!std::isfinite(value)) return {};
  return std::fabs(value) >= 1e6 ? str(value) : fixed(value, map.decimals);
}

struct Grid {
  Box box;
  double cell_width = 0.0;
  double cell_height = 0.0;
};

void draw_cell(Canvas& canvas, const HeatMap& map, const Grid& grid, size_t row, size_t column) {
  const size_t index = row * map.columns.size() + column;
  const double value = map.values[index];
  const double left = grid.box.left + static_cast<double>(column) * grid.cell_width;
  const double top = grid.box.top + static_cast<double>(row) * grid.cell_height;
  const Box cell{.left = left + 0.5,
                 .top = top + 0.5,
                 .right = left + grid.cell_width - 0.5,
                 .bottom = top + grid.cell_height - 0.5};
  const std::string text = cell_text(map, index);
  const std::string tooltip = str(map.frame.y_label.empty() ? "row" : map.frame.y_label,
                                  " ",
                                  map.rows[row],
                                  ", ",
                                  map.frame.x_label.empty() ? "column" : map.frame.x_label,
                                  " ",
                                  map.columns[column],
                                  ": ",
                                  std::isfinite(value) ? text.empty() ? str(value) : text : "none");
  if (!std::isfinite(value)) {
    canvas.rect(cell, "class=\"none\"", tooltip);
    return;
  }
  const Rgb colour = colour_at(share_of(value, map.low, map.high));
  canvas.rect(cell, str("fill=\"", hex(colour), "\""), tooltip);
  const double size = std::min(12.0, grid.cell_height - 4.0);
  if (text.empty() || size < 6.0 || svg::text_width(text, size) > grid.cell_width - 2.0) return;
  canvas.text(left + grid.cell_width / 2,
              top + grid.cell_height / 2 + size * 0.35,
              text,
              Anchor::kMiddle,
              str("class=\"", is_dark(colour) ? "on-dark" : "on-light", "\" font-size=\"", svg::number(size), "\""));
}

void draw_labels(Canvas& canvas, const HeatMap& map, const Grid& grid, bool turned) {
  const double every_row = std::max(1.0, std::ceil(12.0 / grid.cell_height));
  for (size_t row = 0; row < map.rows.size(); row += static_cast<size_t>(every_row)) {
    const double y = grid.box.top + (static_cast<double>(row) + 0.5) * grid.cell_height + 4.0;
    canvas.text(grid.box.left - 6.0, y, svg::cut_text(map.rows[row], 140.0), Anchor::kEnd, "class=\"soft\"");
  }
  const double every_column = turned ? std::max(1.0, std::ceil(14.0 / grid.cell_width)) : 1.0;
  for (size_t column = 0; column < map.columns.size(); column += static_cast<size_t>(every_column)) {
    const double x = grid.box.left + (static_cast<double>(column) + 0.5) * grid.cell_width;
    if (!turned) {
      canvas.text(x, grid.box.bottom + 16.0, map.columns[column], Anchor::kMiddle, "class=\"soft\"");
      continue;
    }
    const double y = grid.box.bottom + 12.0;
    canvas.text(x + 4.0,
                y,
                svg::cut_text(map.columns[column], 110.0),
                Anchor::kEnd,
                str("class=\"soft\" transform=\"rotate(-45 ", svg::number(x + 4.0), " ", svg::number(y), ")\""));
  }
}

void draw_scale(Canvas& canvas, const HeatMap& map, const Box& plot, double left) {
  constexpr int kSteps = 40;
  const double height = std::min(plot.height(), 260.0);
  const double top = plot.top + (plot.height() - height) / 2;
  for (int i = 0; i < kSteps; ++i) {
    const double share = 1.0 - (i + 0.5) / kSteps;
    // Half a unit of overlap, so that no seam shows.
    canvas.rect({.left = left,
                 .top = top + height * i / kSteps,
                 .right = left + 14.0,
                 .bottom = top + height * (i + 1) / kSteps + (i + 1 < kSteps ? 0.5 : 0.0)},
                str("fill=\"", hex(colour_at(share)), "\""));
  }
  // The scale ends where the colours do, at low and high, so the ends are written beside round ticks inside.
  const svg::Axis axis = svg::make_axis(map.low, map.high, false, 5);
  const std::vector<std::string> texts = svg::tick_texts(axis);
  for (size_t i = 0; i < axis.ticks.size(); ++i) {
    const double share = share_of(axis.ticks[i], map.low, map.high);
    if (share < -1e-9 || share > 1.0 + 1e-9) continue;
    const double y = top + height * (1.0 - share);
    canvas.line(left + 14.0, y, left + 17.0, y, "axis");
    canvas.text(left + 20.0, y + 4.0, texts[i], Anchor::kStart, "class=\"soft\"");
  }
  if (map.scale_label.empty()) return;
  const double x = left + 66.0;
  const double middle = top + height / 2;
  canvas.text(x,
              middle,
              svg::cut_text(map.scale_label, plot.height()),
              Anchor::kMiddle,
              str("transform=\"rotate(90 ", svg::number(x), " ", svg::number(middle), ")\""));
}

}  // namespace

std::string heat_map_svg(const HeatMap& original) {
  HeatMap map = original;
  LATHE_CHECK(map.values.size() == map.rows.size() * map.columns.size());
  LATHE_CHECK(map.texts.empty() || map.texts.size() == map.values.size());
  svg::Range range;
  for (const double value : map.values) range.add(value);
  if (!std::isfinite(map.low)) map.low = range.low();
  if (!std::isfinite(map.high)) map.high = range.high();
  if (map.high < map.low) std::swap(map.low, map.high);
  const ChartFrame& frame = map.frame;
  double row_width = 0.0;
  for (const std::string& row : map.rows) row_width = std::max(row_width, std::min(svg::text_width(row), 140.0));
  double column_width = 0.0;
  for (const std::string& column : map.columns) column_width = std::max(column_width, svg::text_width(column));
  Grid grid;
  grid.box.left = (frame.y_label.empty() ? 12.0 : 32.0) + row_width + 8.0;
  grid.box.right = frame.width - (map.scale_label.empty() ? 72.0 : 92.0);
  grid.cell_width = grid.box.width() / std::max(static_cast<double>(map.columns.size()), 1.0);
  const bool turned = column_width > grid.cell_width - 4.0;
  const double below =
      (turned ? 18.0 + std::min(column_width, 110.0) * 0.72 : 20.0) + (frame.x_label.empty() ? 8.0 : 26.0);
  grid.box.top = svg::title_bottom(frame);
  // Cells of at least 14 units, so that text in them can be read; many rows make the chart higher.
  const auto rows = std::max(static_cast<double>(map.rows.size()), 1.0);
  const double room = frame.height - grid.box.top - below;
  grid.cell_height = std::max(room / rows, rows <= 100.0 ? 14.0 : 4.0);
  grid.box.bottom = grid.box.top + grid.cell_height * rows;
  const double height = grid.box.bottom + below;
  Canvas canvas(frame, height);
  for (size_t row = 0; row < map.rows.size(); ++row) {
    for (size_t column = 0; column < map.columns.size(); ++column) draw_cell(canvas, map, grid, row, column);
  }
  draw_labels(canvas, map, grid, turned);
  draw_scale(canvas, map, grid.box, grid.box.right + 14.0);
  canvas.axis_labels(frame, grid.box, height - 10.0);
  return canvas.finish();
}

}  // namespace lathe
