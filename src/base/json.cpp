#include "base/json.h"

#include <set>
#include <vector>

#include "base/error.h"

namespace dmc {
namespace {

constexpr int kDeepest = 64;

// Follows the parser and refuses what nlohmann accepts but we must not: bottomless nesting (its
// destructor and dump recurse) and repeated keys (two readers would see two different files).
class Guard {
 public:
  explicit Guard(const std::string& origin) : origin_(origin) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDeepest) throw data_error(origin_ + ": JSON nests deeper than 64 levels");
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key && !keys_.back().insert(parsed.get<std::string>()).second) {
      throw data_error(origin_ + ": key \"" + parsed.get<std::string>() + "\" appears twice");
    }
    return true;
  }

 private:
  const std::string& origin_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& origin) {
  Guard guard(origin);
  try {
    return nlohmann::json::parse(
        text.begin(), text.end(),
        [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
          return guard(depth, event, parsed);
        });
  } catch (const nlohmann::json::exception& error) {
    throw data_error(origin + ": not valid JSON (" + error.what() + ")");
  }
}

}  // namespace dmc
