#include "lathe/base/svg_chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lathe/base/str.h"
#include "lathe/base/svg_canvas.h"
#include "lathe/base/utf8.h"

namespace lathe {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

int count_of(std::string_view text, std::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Whether tags nest and close, attributes are quoted, and no stray & or control character stands in the text.
testing::AssertionResult well_formed(std::string_view xml) {
  if (!is_valid_utf8(xml)) return testing::AssertionFailure() << "not UTF-8";
  std::vector<std::string> open;
  for (size_t i = 0; i < xml.size(); ++i) {
    const char c = xml[i];
    if (c == '&') {
      const std::string_view rest = xml.substr(i, 6);
      const bool known = std::ranges::any_of(std::vector<std::string_view>{"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"},
                                             [&](std::string_view entity) { return rest.starts_with(entity); });
      if (!known) return testing::AssertionFailure() << "stray & at " << i;
    }
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n') return testing::AssertionFailure() << "control at " << i;
    if (c != '<') continue;
    const size_t end = xml.find('>', i);
    if (end == std::string_view::npos) return testing::AssertionFailure() << "open tag at " << i;
    const std::string_view tag = xml.substr(i + 1, end - i - 1);
    if (tag.find('<') != std::string_view::npos || count_of(tag, "\"") % 2 != 0) {
      return testing::AssertionFailure() << "bad tag " << tag;
    }
    const std::string name(tag.substr(0, tag.find_first_of(" /", 1)));
    if (tag.starts_with("/")) {
      if (open.empty() || "/" + open.back() != name) return testing::AssertionFailure() << "closes nothing: " << tag;
      open.pop_back();
    } else if (!tag.ends_with("/")) {
      open.push_back(name);
    }
    i = end;
  }
  if (!open.empty()) return testing::AssertionFailure() << "never closed: " << open.back();
  return testing::AssertionSuccess();
}

// The data of the paths drawn with a series' class.
std::vector<std::string> paths(const std::string& svg, const std::string& classes) {
  std::vector<std::string> out;
  for (size_t at = svg.find("<path d=\""); at != std::string::npos; at = svg.find("<path d=\"", at + 1)) {
    const size_t begin = at + 9;
    const size_t end = svg.find('"', begin);
    if (svg.substr(end, classes.size() + 10).find("class=\"" + classes + "\"") != std::string::npos) {
      out.push_back(svg.substr(begin, end - begin));
    }
  }
  return out;
}

LineChart rising_line() {
  LineChart chart;
  chart.frame = {.title = "Loss", .x_label = "step", .y_label = "nats"};
  chart.series.push_back({.name = "train", .x = {0, 10, 20}, .y = {0, 5, 10}});
  return chart;
}

TEST(SvgText, IsEscapedAndRepaired) {
  EXPECT_EQ(escape_xml("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
  EXPECT_EQ(escape_xml(std::string_view("x\0\x1b\xff", 4)), "x\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(escape_xml("tab\tline\nÜ€"), "tab\tline\nÜ€");
  EXPECT_EQ(svg::cut_text("short", 100.0), "short");
  const std::string cut = svg::cut_text(std::string(200, 'x'), 100.0);
  EXPECT_TRUE(cut.ends_with("…"));
  EXPECT_LE(svg::text_width(cut), 112.0);
}

TEST(SvgAxis, TicksAreRoundAndCoverTheValues) {
  const svg::Axis axis = svg::make_axis(0.13, 0.87, false, 5);
  EXPECT_EQ(svg::tick_texts(axis), (std::vector<std::string>{"0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_DOUBLE_EQ(axis.place(0.5), 0.5);
  EXPECT_EQ(svg::tick_texts(svg::make_axis(0, 200000, false, 5)),
            (std::vector<std::string>{"0", "50k", "100k", "150k", "200k"}));
  EXPECT_EQ(svg::tick_texts(svg::make_axis(-3, 4, false, 4)), (std::vector<std::string>{"-4", "-2", "0", "2", "4"}));
  const svg::Axis log = svg::make_axis(0.001, 1e6, true, 10);
  EXPECT_EQ(svg::tick_texts(log),
            (std::vector<std::string>{"0.001", "0.01", "0.1", "1", "10", "100", "1k", "10k", "100k", "1M"}));
  EXPECT_NEAR(log.place(1.0), 1.0 / 3.0, 1e-12);
  EXPECT_EQ(svg::tick_texts(svg::make_axis(2e-6, 3e-4, true, 6)).front(), "2e-06");
}

TEST(SvgAxis, ExtremeEndsStayDrawable) {
  const double huge = std::numeric_limits<double>::max();
  const std::vector<std::pair<double, double>> ends = {
      {0, 0}, {5, 5}, {-2, -2}, {kNan, 1}, {-kInfinity, kInfinity}, {-huge, huge}, {1, 1 + 1e-15}, {3, 1}, {0, 5e-324}};
  for (const auto& [low, high] : ends) {
    for (const bool log : {false, true}) {
      SCOPED_TRACE(str(low, " ", high, " ", log));
      const svg::Axis axis = svg::make_axis(low, high, log, 6);
      ASSERT_GE(axis.ticks.size(), 2U);
      ASSERT_LE(axis.ticks.size(), 40U);
      EXPECT_EQ(svg::tick_texts(axis).size(), axis.ticks.size());
      for (const double tick : axis.ticks) EXPECT_TRUE(std::isfinite(axis.place(tick))) << tick;
    }
  }
}

TEST(LineChartSvg, HasTitleAxesAndTheLineWhereItBelongs) {
  const std::string svg = line_chart_svg(rising_line());
  EXPECT_TRUE(well_formed(svg));
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  for (const char* part :
       {"role=\"img\"", "<title>Loss</title>", ">step<", ">nats<", ">train<", "prefers-color-scheme:dark"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
  const std::vector<std::string> lines = paths(svg, "line s0");
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(count_of(lines.front(), "M"), 1);
  EXPECT_EQ(count_of(lines.front(), "L"), 2);
  EXPECT_EQ(count_of(svg, "<circle"), 3) << "few points are marked";
  EXPECT_NE(svg.find("<title>train: 10, 5</title>"), std::string::npos);
  EXPECT_EQ(svg, line_chart_svg(rising_line())) << "equal structs, equal bytes";
}

TEST(LineChartSvg, GapsForWhatIsNotFinite) {
  LineChart chart = rising_line();
  chart.series[0] = {.name = "a", .x = {0, 1, 2, 3, 4, 5, 6}, .y = {1, 2, kNan, 3, kInfinity, 4, 5}};
  const std::string svg = line_chart_svg(chart);
  const std::vector<std::string> lines = paths(svg, "line s0");
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(count_of(lines.front(), "M"), 3);
  EXPECT_EQ(count_of(lines.front(), "L"), 2);
  EXPECT_EQ(count_of(lines.front(), "h0"), 1) << "the point between two gaps is a dot: " << lines.front();
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  chart.series[0].y.assign(7, kNan);
  EXPECT_TRUE(well_formed(line_chart_svg(chart)));
  chart.log_y = true;
  chart.series[0].y = {0, -1, 1, 10, 100, 0, 5};
  EXPECT_EQ(count_of(paths(line_chart_svg(chart), "line s0").front(), "M"), 2) << "a log axis has no zero";
}

TEST(LineChartSvg, LongSeriesKeepTheirExtremes) {
  LineChart chart = rising_line();
  LineSeries& series = chart.series.front();
  series = {.name = "long", .x = {}, .y = {}};
  for (int i = 0; i < 100000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 31234 ? 100.0 : i == 77777 ? -100.0 : std::sin(i * 0.7));
  }
  const std::string svg = line_chart_svg(chart);
  EXPECT_LT(svg.size(), 60000U);
  const std::string line = paths(svg, "line s0").front();
  EXPECT_LE(count_of(line, "L"), 4 * 720);
  // The axis reaches from -100 to 100, so the two spikes lie on the upper and lower edge of the plot.
  std::vector<double> ys;
  for (size_t at = line.find(' '); at != std::string::npos; at = line.find(' ', at + 1)) {
    ys.push_back(std::strtod(line.c_str() + at, nullptr));
  }
  const auto [top, bottom] = std::ranges::minmax(ys);
  EXPECT_NE(svg.find(str("\" y2=\"", svg::number(top), "\" class=\"grid\"")), std::string::npos);
  EXPECT_NE(svg.find(str("\" y2=\"", svg::number(bottom), "\" class=\"grid\"")), std::string::npos);
}

TEST(LineChartSvg, EmptyAndManySeries) {
  EXPECT_TRUE(well_formed(line_chart_svg({})));
  LineChart chart;
  for (int i = 0; i < 20; ++i) {
    chart.series.push_back({.name = str("a rather long name <", i, ">"), .x = {0, 1}, .y = {0, i / 3.0}});
  }
  const std::string svg = line_chart_svg(chart);
  EXPECT_TRUE(well_formed(svg));
  EXPECT_EQ(paths(svg, "line s0").size(), 1U);
  EXPECT_EQ(paths(svg, "line s0 again").size(), 2U) << "colours come again with other dashes";
}

TEST(BarChartSvg, BarsGoUpAndDownFromZero) {
  BarChart chart;
  chart.frame = {.title = "Removed", .y_label = "documents"};
  chart.categories = {"a", "b", "c", "d"};
  chart.series = {{.name = "n", .values = {2, -1, kNan, 0.5}}};
  const std::string svg = bar_chart_svg(chart);
  EXPECT_TRUE(well_formed(svg));
  EXPECT_EQ(count_of(svg, "class=\"s0\" stroke-width"), 3);
  for (const char* tooltip : {"a, n: 2.0", "b, n: -1.0", "d, n: 0.5"}) {
    EXPECT_NE(svg.find(str("<title>", tooltip, "</title>")), std::string::npos) << tooltip;
  }
  chart.categories = {"<a name that is too long>", "b", "c", "d"};
  EXPECT_NE(bar_chart_svg(chart).find("rotate(-45"), std::string::npos);
  EXPECT_TRUE(well_formed(bar_chart_svg({})));
}

TEST(HeatMapSvg, CellsHaveTextColourAndTooltip) {
  HeatMap map;
  map.frame = {.title = "Needle", .x_label = "length", .y_label = "depth"};
  map.rows = {"0", "50"};
  map.columns = {"1K", "2K", "4K"};
  map.values = {0, 0.5, 1, 2, kNan, -1};
  map.low = 0.0;
  map.high = 1.0;
  map.scale_label = "share";
  const std::string svg = heat_map_svg(map);
  EXPECT_TRUE(well_formed(svg));
  EXPECT_NE(svg.find("<title>depth 0, length 2K: 0.50</title>"), std::string::npos);
  EXPECT_NE(svg.find("<title>depth 50, length 2K: none</title>"), std::string::npos);
  EXPECT_EQ(count_of(svg, "class=\"none\""), 1);
  EXPECT_EQ(count_of(svg, "fill=\"#00224e\""), 2) << "0, and what is below the scale";
  EXPECT_EQ(count_of(svg, "fill=\"#fee838\""), 2) << "1, and what is above the scale";
  EXPECT_EQ(count_of(svg, "class=\"on-dark\""), 3) << "white on dark cells: 0, 0.5 and -1";
  EXPECT_EQ(count_of(svg, "class=\"on-light\""), 2);
  map.texts = {"a", "b", "c", "d", "e", "f"};
  EXPECT_NE(heat_map_svg(map).find(">f</text>"), std::string::npos);
}

TEST(HeatMapSvg, RangeFromTheValuesAndManyRows) {
  HeatMap map;
  for (int i = 0; i < 60; ++i) map.rows.push_back(str(i));
  for (int i = 0; i < 64; ++i) map.columns.push_back(str("e", i));
  for (int i = 0; i < 60 * 64; ++i) map.values.push_back(i);
  const std::string svg = heat_map_svg(map);
  EXPECT_TRUE(well_formed(svg));
  EXPECT_NE(svg.find(" height=\"8"), std::string::npos) << "grows with its rows";
  map.values.assign(map.values.size(), 3.0);
  EXPECT_TRUE(well_formed(heat_map_svg(map)));
  EXPECT_TRUE(well_formed(heat_map_svg({})));
}

TEST(ChartPage, HoldsNotesAndCharts) {
  const std::vector<std::string> notes = {"1 < 2"};
  const std::vector<std::string> svgs = {line_chart_svg(rising_line()), bar_chart_svg({})};
  const std::string page = chart_page("A & B", notes, svgs);
  EXPECT_TRUE(page.starts_with("<!DOCTYPE html>\n"));
  EXPECT_NE(page.find("<title>A &amp; B</title>"), std::string::npos);
  EXPECT_NE(page.find("<p>1 &lt; 2</p>"), std::string::npos);
  EXPECT_EQ(count_of(page, "<svg "), 2);
  EXPECT_EQ(page.find("http://www.w3.org/2000/svg") == std::string::npos, false);
  EXPECT_EQ(count_of(page, "href="), 0) << "nothing is loaded from elsewhere";
}

}  // namespace
}  // namespace lathe
