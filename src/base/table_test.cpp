#include "base/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "base/error.h"
#include "base/terminal.h"

namespace dmc {
namespace {

TEST(Terminal, CutsBetweenCodePoints) {
  EXPECT_EQ(display_width("a━b"), 3u);
  EXPECT_EQ(cut_to_width("a━b", 2), "a━");
  EXPECT_EQ(cut_to_width("a━b", 1), "a");
  EXPECT_EQ(cut_to_width("a━b", 9), "a━b");
}

TEST(Terminal, AStringStreamHasNoColour) {
  std::ostringstream out;
  EXPECT_FALSE(color_enabled(out));
  EXPECT_EQ(bold("x", false), "x");
  EXPECT_EQ(on_color("x", 16, 228, true), "\x1b[38;5;16;48;5;228mx\x1b[0m");
}

TEST(Table, AlignsColumnsAndCountsCodePoints) {
  Table table({{"model", Align::kLeft}, {"bits/byte"}, {"CR"}});
  table.add_row({"dense", "2.10", "1.0×"});
  table.add_row({"dmc", "2.11", "12.0×"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(),
            "model  bits/byte     CR\n"
            "dense       2.10   1.0×\n"
            "dmc         2.11  12.0×\n");
  EXPECT_THROW(table.add_row({"short"}), Error);
}

TEST(HeatMap, PlainNumbersWithoutColour) {
  std::ostringstream out;
  print_heat_map(out, {"CR", "layer", "head", {{1.0, 2.5}, {std::nan(""), 12.25}}, 1.0, 4.0},
                 false);
  EXPECT_EQ(out.str(),
            "CR\n"
            "   head     0     1 \n"
            "layer 0  1.00  2.50 \n"
            "layer 1     - 12.25 \n");
}

TEST(HeatMap, ColoursAreClampedToTheScale) {
  const auto print = [](double value) {
    std::ostringstream out;
    print_heat_map(out, {"", "", "", {{value}}, 1.0, 4.0}, true);
    return out.str();
  };
  const auto background = [&](double value) {
    const std::string text = print(value);
    const size_t at = text.find("48;5;");
    return text.substr(at, text.find('m', at) - at);
  };
  EXPECT_EQ(background(0.5), background(1.0));
  EXPECT_EQ(background(9.0), background(4.0));
  EXPECT_NE(background(1.0), background(4.0));
}

TEST(HeatMap, EmptyAndConstantMapsAreFine) {
  std::ostringstream out;
  print_heat_map(out, {"nothing", "layer", "head", {}, 1.0, 1.0}, true);
  print_heat_map(out, {"flat", "layer", "head", {{1.0}}, 1.0, 1.0}, true);
  EXPECT_NE(out.str().find("1.00"), std::string::npos);
}

}  // namespace
}  // namespace dmc
