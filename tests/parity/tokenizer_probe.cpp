// tokenizer_probe MODEL_DIR MODE: what text::Tokenizer makes of standard input, whose records each
// end in a NUL byte. MODE says what a record is and what is printed for it:
//   encode  a text -> its ids, special tokens recognised
//   plain   a text -> its ids, special tokens taken as text
//   prompt  a text -> its ids with what the model wants around them
//   decode  ids -> their text and a NUL byte, decoded at once
//   stream  the same, decoded one by one
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "text/tokenizer.h"

namespace {

using dmc::text::Tokenizer;
using Ids = std::vector<int32_t>;
using Mode = void (*)(const Tokenizer&, const std::string& record);

void print(const Ids& ids) {
  for (int32_t id : ids) std::cout << id << ' ';
  std::cout << '\n';
}

Ids read_ids(const std::string& record) {
  std::istringstream numbers(record);
  Ids ids;
  for (int32_t id; numbers >> id;) ids.push_back(id);
  return ids;
}

void stream(const Tokenizer& tokenizer, const std::string& record) {
  dmc::text::StreamDecoder decoder(tokenizer);
  for (int32_t id : read_ids(record)) std::cout << decoder.push(id);
  std::cout << decoder.finish() << '\0';
}

const std::map<std::string, Mode> kModes = {
    {"encode", [](const Tokenizer& t, const std::string& r) { print(t.encode(r, true)); }},
    {"plain", [](const Tokenizer& t, const std::string& r) { print(t.encode(r)); }},
    {"prompt", [](const Tokenizer& t, const std::string& r) { print(t.encode_prompt(r)); }},
    {"decode",
     [](const Tokenizer& t, const std::string& r) { std::cout << t.decode(read_ids(r)) << '\0'; }},
    {"stream", stream},
};

}  // namespace

int main(int argc, char** argv) {
  const auto mode = kModes.find(argc == 3 ? argv[2] : "");
  if (mode == kModes.end()) {
    std::fprintf(stderr, "usage: tokenizer_probe MODEL_DIR encode|plain|prompt|decode|stream\n");
    return 2;
  }
  try {
    const Tokenizer tokenizer(argv[1]);
    for (std::string record; std::getline(std::cin, record, '\0');) {
      mode->second(tokenizer, record);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenizer_probe: %s\n", error.what());
    return 1;
  }
}
