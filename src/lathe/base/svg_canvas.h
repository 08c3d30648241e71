// What the charts of svg_chart.h are drawn with: axes with round ticks, text widths, and the elements of a chart.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/svg_chart.h"

namespace lathe::svg {

inline constexpr int kColours = 8;         // classes s0 to s7, then again from s0 with another dash
inline constexpr double kFontSize = 12.0;  // of labels

// A rectangle in user units, y downwards.
struct Box {
  double left = 0.0;
  double top = 0.0;
  double right = 0.0;
  double bottom = 0.0;

  double width() const { return right - left; }

  double height() const { return bottom - top; }
};

// Values to places. On a log axis `low` and `high` are positive.
struct Axis {
  double low = 0.0;
  double high = 1.0;
  bool log = false;
  std::vector<double> ticks;  // inside [low, high], rising

  // Whether the value is finite and, on a log axis, positive.
  bool shows(double value) const;
  double place(double value) const;  // 0 at low, 1 at high
};

// The axis for values in [low, high] with about `count` ticks. A linear one is widened to whole ticks. Equal, reversed
// or not finite ends give an axis that can be drawn all the same.
Axis make_axis(double low, double high, bool log, int count);

// The ticks as short text, all with the same number of decimals: "0.25", "20k", "1e-06".
std::vector<std::string> tick_texts(const Axis& axis);

// Lowest and highest finite value seen; only positive ones count when `positive`.
class Range {
 public:
  explicit Range(bool positive = false) : positive_(positive) {}

  // Takes a value in.
  void add(double value);

  double low() const { return any_ ? low_ : 0.0; }

  double high() const { return any_ ? high_ : 1.0; }

 private:
  bool positive_;
  bool any_ = false;
  double low_ = 0.0;
  double high_ = 0.0;
};

// A length or place with at most one decimal: "12", "12.5".
std::string number(double value);

// Estimated width of a text in user units: fonts differ, so leave room.
double text_width(std::string_view text, double size = kFontSize);

// `text` cut to `width`, with an ellipsis where something is missing.
std::string cut_text(std::string_view text, double width, double size = kFontSize);

enum class Anchor { kStart, kMiddle, kEnd };

// The elements of one chart, in drawing order.
class Canvas {
 public:
  // Writes the head: accessible name, style, background, title.
  Canvas(const ChartFrame& frame, double height);

  // `classes` picks colours of the style sheet: "s0" and so on for series, "axis", "grid".
  void line(double x1, double y1, double x2, double y2, std::string_view classes);
  void rect(const Box& box, std::string_view attributes, std::string_view tooltip = {});
  void circle(double x, double y, double radius, std::string_view classes, std::string_view tooltip);
  void path(std::string_view d, std::string_view classes);
  void text(double x, double y, std::string_view text, Anchor anchor, std::string_view attributes = {});

  // Names of series with a piece of their line or colour, in rows between left and right; returns the bottom.
  double legend(const std::vector<std::string>& names, double left, double right, double top, bool lines);
  // Grid lines, tick marks and texts of a vertical axis; `texts` belong to axis.ticks.
  void y_axis(const Axis& axis, const std::vector<std::string>& texts, const Box& plot);
  void x_axis(const Axis& axis, const std::vector<std::string>& texts, const Box& plot);
  // The labels of both axes, beside and below.
  void axis_labels(const ChartFrame& frame, const Box& plot, double x_label_y);

  // Closes the element; the canvas is empty afterwards.
  std::string finish();

 private:
  std::string out_;
};

// Where the drawing begins below the title.
double title_bottom(const ChartFrame& frame);

// "s3" and, from the ninth series on, a second class that makes the dashes others.
std::string series_class(size_t index);

}  // namespace lathe::svg
