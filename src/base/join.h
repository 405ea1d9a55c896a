// Lists in messages.
#pragma once

#include <functional>
#include <ranges>
#include <string>
#include <string_view>

namespace dmc {

// "a, b, c": what `projection` makes of each item, a string, with `separator` between.
template <std::ranges::input_range Items, class Projection = std::identity>
std::string join(const Items& items, std::string_view separator, Projection projection = {}) {
  std::string text;
  bool first = true;
  for (const auto& item : items) {
    if (!first) text += separator;
    first = false;
    text += std::invoke(projection, item);
  }
  return text;
}

}  // namespace dmc
