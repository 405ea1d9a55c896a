#include "report/markup_check.h"

#include <regex>
#include <vector>

namespace dmc::report {
namespace {

std::string at_line(std::string_view markup, size_t position, const std::string& problem) {
  return "line " + std::to_string(count_of(markup.substr(0, position), "\n") + 1) + ": " + problem;
}

// "name", "/name" or "name/": checks the form of the attributes on the way.
bool is_tag(const std::string& tag) {
  static const std::regex kTag(
      R"(/?[A-Za-z][A-Za-z0-9]*(\s+[A-Za-z][A-Za-z0-9-]*="[^"<]*")*\s*/?)");
  return std::regex_match(tag, kTag);
}

std::string text_problem(const std::string& text) {
  static const std::regex kBareAmpersand(R"(&(?!(amp|lt|gt|quot|#39);))");
  return std::regex_search(text, kBareAmpersand) ? "a bare & in: " + text : "";
}

}  // namespace

int count_of(std::string_view text, std::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

std::string markup_problem(std::string_view markup) {
  std::vector<std::string> open;
  size_t at = 0;
  while (true) {
    const size_t start = markup.find('<', at);
    const std::string text(markup.substr(at, start == markup.npos ? start : start - at));
    if (const std::string problem = text_problem(text); !problem.empty()) {
      return at_line(markup, at, problem);
    }
    if (start == markup.npos) break;
    const size_t end = markup.find('>', start);
    if (end == markup.npos) return at_line(markup, start, "an unfinished tag");
    const std::string tag(markup.substr(start + 1, end - start - 1));
    at = end + 1;
    if (tag == "!DOCTYPE html") continue;
    if (!is_tag(tag)) return at_line(markup, start, "a malformed tag: <" + tag + ">");
    const std::string name = tag.substr(0, tag.find_first_of(" \n/", 1));
    if (tag[0] == '/') {
      if (open.empty() || "/" + open.back() != name) {
        return at_line(markup, start, "<" + tag + "> closes nothing");
      }
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
      if (name == "style" || name == "script") at = markup.find("</" + name, at);
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

}  // namespace dmc::report
