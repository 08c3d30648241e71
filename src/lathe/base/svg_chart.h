// Charts as self-contained SVG text: line chart, bar chart, heat map. No script, no font file, no id, no reference to
// anything outside, so that a chart can stand alone, in an <img> or inside a page beside others. Colours are told apart
// by colour-blind readers (and lines also by their dashes), follow prefers-color-scheme and can be printed. Equal
// structs give equal bytes. Texts are UTF-8; invalid bytes become U+FFFD, everything is escaped.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

// What all charts have.
struct ChartFrame {
  std::string title = {};        // above the chart, and the name that screen readers say
  std::string description = {};  // longer text for screen readers; may be empty
  std::string x_label = {};
  std::string y_label = {};
  double width = 720.0;      // user units (pixels at scale 1)
  double height = 420.0;     // at least; a heat map grows with its rows
  bool inside_page = false;  // a part of HTML only, which needs no namespace
};

// One line. x and y have equal lengths; a y (or x) that is not finite is a gap, and so is what a log axis cannot show.
struct LineSeries {
  std::string name = {};
  std::vector<double> x = {};
  std::vector<double> y = {};
};

// Several lines over common axes. Lines with more points than the chart has columns are reduced to the first, lowest,
// highest and last point of each column, which draws the same picture.
struct LineChart {
  ChartFrame frame = {};
  std::vector<LineSeries> series = {};
  bool log_x = false;
  bool log_y = false;
  bool y_from_zero = false;  // the axis begins at 0 even when no value is near it
};

// One colour of bars: a value for each category; not finite: no bar.
struct BarSeries {
  std::string name = {};
  std::vector<double> values = {};
};

// Vertical bars from 0, those of a category side by side.
struct BarChart {
  ChartFrame frame = {};
  std::vector<std::string> categories = {};
  std::vector<BarSeries> series = {};
  int decimals = -1;  // of the values written at the bars where there is room; -1: as many as they need, at most 3
};

// Rows (top to bottom) x columns (left to right) of coloured cells; not finite: an empty cell.
struct HeatMap {
  ChartFrame frame = {};
  std::vector<std::string> rows = {};     // labels
  std::vector<std::string> columns = {};  // labels
  std::vector<double> values = {};        // [rows, columns], row-major
  std::vector<std::string> texts = {};    // [rows, columns] or empty: the values with `decimals`
  int decimals = 2;
  // Ends of the colour scale; NaN: the least and the largest finite value.
  double low = std::numeric_limits<double>::quiet_NaN();
  double high = std::numeric_limits<double>::quiet_NaN();
  std::string scale_label = {};  // beside the colour scale
};

// The charts as one <svg> element with a newline at the end. Lengths that do not fit together are bugs of the caller.
std::string line_chart_svg(const LineChart& chart);
std::string bar_chart_svg(const BarChart& chart);
std::string heat_map_svg(const HeatMap& map);

// A page of its own around `body`, which is HTML already; `title` is plain text. Has styles for charts, tables (numbers
// in cells of class "n") and <pre>.
std::string html_page(std::string_view title, std::string_view body);

// A chart as part of such a page's body.
std::string figure(std::string_view svg);

// A page that shows charts one below the other: `svgs` as the functions above return them, `notes` plain
// text paragraphs above them.
std::string chart_page(std::string_view title, std::span<const std::string> notes, std::span<const std::string> svgs);

// `text` for the inside of an element or of a quoted attribute: & < > " ' escaped, control characters that XML forbids
// and invalid UTF-8 replaced by U+FFFD.
std::string escape_xml(std::string_view text);

}  // namespace lathe
