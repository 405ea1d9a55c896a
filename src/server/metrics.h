// What /metrics tells, in Prometheus' text format.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/engine_loop.h"

namespace dmc::server {

// Seconds, or tokens: the histograms a server keeps. The order is that of the table in metrics.cpp.
enum class Timing {
  kFirstToken,
  kBetweenTokens,
  kRequest,
  kQueue,
  kPromptTokens,
  kWrittenTokens,
  kCount
};

class Metrics {
 public:
  Metrics();
  void observe(Timing what, double value);
  void count_answer(int status);
  void count_ratio(std::span<const double> by_layer);  // of a text that has ended

  struct About {
    std::string version, model, policy;
    double page_bytes = 0.0, slot_bytes = 0.0;
    int64_t streams = 0, connections = 0;
  };
  std::string render(const engine::EngineLoop::State& state, const About& about) const;

 private:
  struct Histogram {
    std::vector<int64_t> counts;
    double sum = 0.0;
  };
  mutable std::mutex mutex_;
  std::array<Histogram, static_cast<size_t>(Timing::kCount)> histograms_;
  std::map<int, int64_t> answers_;  // by status
  std::vector<double> layer_ratios_;
};

}  // namespace dmc::server
