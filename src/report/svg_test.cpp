#include "report/svg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "report/markup_check.h"

namespace dmc::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

LineChart chart_of(std::vector<Point> points) {
  return {"a chart", {"step"}, {"loss"}, {{"line", 1, false, false, true, std::move(points)}}};
}

void expect_sound(const std::string& markup) {
  EXPECT_EQ(markup_problem(markup), "");
  EXPECT_EQ(markup.find("nan"), std::string::npos) << markup;
  EXPECT_EQ(markup.find("inf"), std::string::npos) << markup;
}

TEST(EscapeHtml, KeepsTextAndDisarmsMarkup) {
  EXPECT_EQ(escape_html("a < b && \"c\" 'd' > e"),
            "a &lt; b &amp;&amp; &quot;c&quot; &#39;d&#39; &gt; e");
  EXPECT_EQ(escape_html("tab\tline\nü"), "tab\tline\nü");
  EXPECT_EQ(escape_html(std::string_view("\x00\x1b", 2)), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(escape_html("\xff!"), "\xef\xbf\xbd!");
}

TEST(NiceTicks, AreRoundInsideTheRangeAndAboutAsManyAsAsked) {
  EXPECT_EQ(nice_ticks(0.0, 10.0, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(nice_ticks(1.0, 2.0, 4), (std::vector<double>{1.0, 1.25, 1.5, 1.75, 2.0}));
  for (const double scale : {1e-9, 0.03, 1.0, 77.0, 1e12}) {
    for (const double low : {-3.0, 0.0, 0.7}) {
      const auto ticks = nice_ticks(low * scale, (low + 1.3) * scale, 5);
      EXPECT_GE(ticks.size(), 2u);
      EXPECT_LE(ticks.size(), 7u);
      EXPECT_GE(ticks.front(), (low - 1e-6) * scale);
      EXPECT_LE(ticks.back(), (low + 1.3 + 1e-6) * scale);
    }
  }
}

TEST(NiceTicks, NoRangeHasNoTicks) {
  EXPECT_TRUE(nice_ticks(1.0, 1.0, 5).empty());
  EXPECT_TRUE(nice_ticks(2.0, 1.0, 5).empty());
  EXPECT_TRUE(nice_ticks(1e17, 1e17 + 64.0, 5).empty());
  EXPECT_TRUE(nice_ticks(-1e308, 1.7e308, 5).empty());
  EXPECT_TRUE(nice_ticks(kNan, 1.0, 5).empty());
  EXPECT_TRUE(nice_ticks(0.0, kInfinity, 5).empty());
}

TEST(TokensText, IsInUnitsOf1024) {
  EXPECT_EQ(tokens_text(0), "0");
  EXPECT_EQ(tokens_text(512), "512");
  EXPECT_EQ(tokens_text(16384), "16k");
  EXPECT_EQ(tokens_text(1536), "1.5k");
}

TEST(LineChart, DrawsEveryFinitePoint) {
  const std::string svg = line_chart(chart_of({{0, 1}, {1, kNan}, {2, 3}, {3, kInfinity}, {4, 2}}));
  expect_sound(svg);
  EXPECT_EQ(count_of(svg, "<circle"), 3);
  EXPECT_NE(svg.find(">line</text>"), std::string::npos);
}

TEST(LineChart, AGapIsNotBridged) {
  const std::string svg = line_chart(chart_of({{0, 1}, {1, 2}, {2, kNan}, {3, 3}, {4, 2}}));
  const size_t at = svg.find(" d=\"");
  const std::string path = svg.substr(at, svg.find("\"/>", at) - at);
  EXPECT_EQ(count_of(path, "M"), 2) << path;
}

TEST(LineChart, NothingOnePointAndConstantsAreFine) {
  for (const bool log2 : {false, true}) {
    for (const bool tokens : {false, true}) {
      for (const auto& points : {std::vector<Point>{},
                                 {{5, 5}},
                                 {{5, 5}, {5, 5}},
                                 {{0, 0}},
                                 {{0, 0}, {1, 0}},
                                 {{-4, -2}, {4, 2}},
                                 {{kNan, kNan}},
                                 {{1e300, 1e300}, {-1e300, -1e300}}}) {
        LineChart chart = chart_of(points);
        chart.x.log2 = log2;
        chart.x.tokens = chart.y.tokens = tokens;
        chart.y.from_zero = tokens;
        expect_sound(line_chart(chart));
      }
    }
  }
  EXPECT_EQ(line_chart(chart_of({})), kNothingMeasured);
}

TEST(LineChart, LabelsOfLinesThatEndTogetherStandApart) {
  LineChart chart = chart_of({{0, 1}, {1, 1}});
  for (const char* name : {"second", "third"}) {
    chart.lines.push_back(chart.lines[0]);
    chart.lines.back().label = name;
  }
  const std::string svg = line_chart(chart);
  std::vector<double> heights;
  for (size_t at = svg.find("label s"); at != std::string::npos; at = svg.find("label s", at + 1)) {
    heights.push_back(std::stod(svg.substr(svg.rfind(" y=\"", at) + 4)));
  }
  ASSERT_EQ(heights.size(), 3u);
  EXPECT_GE(heights[1] - heights[0], 12.0);
  EXPECT_GE(heights[2] - heights[1], 12.0);
}

TEST(LineChart, LongSeriesAreThinnedButKeepTheirLastPoint) {
  std::vector<Point> points;
  for (int i = 0; i < 100000; ++i) points.push_back({static_cast<double>(i), i % 7 * 1.0});
  LineChart chart = chart_of(points);
  chart.lines[0].markers = false;
  EXPECT_LT(line_chart(chart).size(), 20000u);
}

TEST(HeatMapChart, ShowsValuesAndSurvivesHolesAndRaggedRows) {
  const std::string svg = heat_map_chart(
      {"CR", "layer", "KV head", {{1.0, 2.5}, {kNan}, {}, {0.0, -1.0, 12.5}}, 1.0, 4.0});
  expect_sound(svg);
  EXPECT_NE(svg.find(">2.50</text>"), std::string::npos);
  EXPECT_NE(svg.find(">12.5</text>"), std::string::npos);
  EXPECT_NE(svg.find("layer 1, KV head 0: not measured"), std::string::npos);
}

TEST(HeatMapChart, EmptyAndFlatScales) {
  EXPECT_EQ(heat_map_chart({"CR", "layer", "KV head", {}, 1.0, 4.0}), kNothingMeasured);
  EXPECT_EQ(heat_map_chart({"CR", "layer", "KV head", {{}, {}}, 1.0, 4.0}), kNothingMeasured);
  expect_sound(heat_map_chart({"CR", "layer", "KV head", {{1.0}}, 1.0, 1.0}));
}

TEST(BarChart, LongestFillsTheWidthAndMissingOnesAreStubs) {
  expect_sound(bar_chart("cache", {{"dense", 0, 200.0, "200 B"}, {"none", 7, kNan, "–"}}));
  EXPECT_EQ(bar_chart("cache", {}), kNothingMeasured);
  EXPECT_EQ(bar_chart("cache", {{"zero", 0, 0.0, "0"}}), kNothingMeasured);
}

}  // namespace
}  // namespace dmc::report
