// Tables whose entries have a `name`, and often a `summary`: how their entries are found and told.
#pragma once

#include <algorithm>
#include <ranges>
#include <string>
#include <string_view>

#include "base/join.h"

namespace dmc {

// The entry of that name; null if there is none. Refers into the table.
template <std::ranges::contiguous_range Table>
auto find_named(const Table& table, std::string_view name) {
  const auto end = std::ranges::data(table) + std::ranges::size(table);
  const auto found =
      std::find_if(std::ranges::data(table), end, [&](const auto& e) { return e.name == name; });
  return found == end ? nullptr : found;
}

// "a: what a does; b: what b does".
template <std::ranges::input_range Table>
std::string names_explained(const Table& table) {
  return join(table, "; ", [](const auto& entry) {
    return std::string(entry.name) + ": " + std::string(entry.summary);
  });
}

}  // namespace dmc
