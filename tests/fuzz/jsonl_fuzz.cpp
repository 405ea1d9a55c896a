#include "tests/fuzz/target.h"
#include "text/corpus.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 200};

// Texts of a .jsonl file: all of them can be read, and what training leaves out is never more.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = dmc::fuzz::directory_with("text.jsonl", data, size) / "text.jsonl";
  return dmc::fuzz::accept_errors([&] {
    const dmc::text::Corpus all({file}, dmc::text::Split::kAll);
    uint64_t bytes = 0;
    for (size_t i = 0; i < all.size(); ++i) bytes += all.text(i).size();
    DMC_CHECK(bytes == all.bytes());
    const dmc::text::Corpus held_out({file}, dmc::text::Split::kHeldOut);
    DMC_CHECK(held_out.bytes() <= bytes);
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  const auto repeated = [](const std::string& line) {
    return [line](size_t n) {
      std::string text;
      while (text.size() < n) text += line;
      return text;
    };
  };
  return {
      {"short lines", repeated("{\"text\": \"a\"}\n")},
      {"empty lines", repeated("\n")},
      {"blank lines", repeated(" \t\r\n")},
      {"one long text", [](size_t n) { return "{\"text\": \"" + std::string(n, 'a') + "\"}\n"; }},
      {"one text of new lines", [](size_t n) {
         std::string text = "{\"text\": \"";
         while (text.size() < n) text += "\\n";
         return text + "\"}\n";
       }}};
}
