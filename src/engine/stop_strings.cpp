#include "engine/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace dmc::engine {
namespace {

// Bytes at the end of `text` that begin `stop`, which is not in it as a whole.
size_t begun(std::string_view text, std::string_view stop) {
  for (size_t size = std::min(text.size(), stop.size() - 1); size > 0; --size) {
    if (text.ends_with(stop.substr(0, size))) return size;
  }
  return 0;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops, bool keep)
    : stops_(std::move(stops)), keep_(keep) {
  for (const std::string& stop : stops_) DMC_CHECK(!stop.empty());
}

std::string StopStrings::push(std::string_view text) {
  DMC_CHECK(!found_);
  held_ += text;
  size_t end = std::string::npos, start = 0;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (std::pair(at + stop.size(), at) >= std::pair(end, start)) continue;
    end = at + stop.size(), start = at, found_ = stop;
  }
  if (found_) {
    const std::string shown = held_.substr(0, keep_ ? end : start);
    held_.clear();
    return shown;
  }
  size_t kept = 0;
  for (const std::string& stop : stops_) kept = std::max(kept, begun(held_, stop));
  const std::string shown = held_.substr(0, held_.size() - kept);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace dmc::engine
