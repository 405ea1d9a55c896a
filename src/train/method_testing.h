// For tests that hold for every method, whoever takes its decisions.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "train/method.h"

namespace dmc::train {

using MethodAndSource = std::tuple<Method, const char*>;  // the source as `--decisions` names it

inline auto methods_and_sources() {
  return testing::Combine(testing::ValuesIn(methods().begin(), methods().end()),
                          testing::Values("neuron", "adapter"));
}

// "dmc_neuron"
inline std::string test_name(const testing::TestParamInfo<MethodAndSource>& test) {
  std::string name(std::get<Method>(test.param).name);
  std::ranges::replace(name, '-', '_');
  return name + "_" + std::get<const char*>(test.param);
}

}  // namespace dmc::train
