// Plots as SVG text for one self-contained page: lines over steps, and a map of coloured cells. No scripts, no fonts or
// files from elsewhere; colours follow the reader's light or dark setting.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::train {

// Text with <, >, & and quotes made harmless.
std::string escape_html(std::string_view text);

// Points in the order they are joined.
struct Curve {
  std::string name = {};
  std::vector<double> x = {};
  std::vector<double> y = {};  // values that are not finite leave gaps
};

// One frame with a legend when there are several curves.
struct LinePlot {
  std::string title = {};
  std::string x_label = {};
  std::vector<Curve> curves = {};
  bool log_y = false;  // values that are not positive leave gaps
};

// Curves of more than 1000 points are thinned: each piece keeps its least and its greatest value.
std::string svg_line_plot(const LinePlot& plot);

// Cells in rows from the top.
struct HeatMap {
  std::string title = {};
  std::string x_label = {};
  std::string y_label = {};
  std::vector<std::string> columns = {};
  std::vector<std::string> rows = {};
  std::vector<std::vector<double>> cells = {};  // [row][column]; not finite: left empty
  double least = 0.0;                           // the values of the ends of the scale
  double greatest = 1.0;
  bool red_to_green = false;  // false: white to blue
  bool numbers = false;       // write the values into the cells
};

// Values beyond the ends of the scale get the colours of the ends.
std::string svg_heat_map(const HeatMap& map);

// A page around `body`.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace lathe::train
