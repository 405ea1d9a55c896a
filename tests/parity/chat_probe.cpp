// chat_probe: reads one JSON document a line from standard input, {"template", "messages",
// "variables", "trusted", "add_generation_prompt"}, and prints one a line: {"text", "untrusted"}
// with the byte ranges that came from the messages, or {"error"}.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "text/chat_template.h"

namespace {

using nlohmann::ordered_json;

ordered_json answer(const ordered_json& request) {
  try {
    dmc::text::ChatTemplate chat(request.at("template").get<std::string>(), "template");
    for (const auto& [name, value] : request.at("trusted").items()) {
      chat.set_trusted(name, value.get<std::string>());
    }
    const auto prompt = chat.render(request.at("messages"), request.at("add_generation_prompt"),
                                    request.at("variables"));
    ordered_json ranges = ordered_json::array();
    for (const auto& range : prompt.untrusted) ranges.push_back({range.begin, range.end});
    return {{"text", prompt.text}, {"untrusted", ranges}};
  } catch (const dmc::Error& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(ordered_json::parse(line)).dump() << "\n";
  }
  return 0;
}
