// tokenizer_probe MODEL_DIR: reads texts from standard input, each ended by a NUL byte, and prints
// the token ids of each on a line.
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "io/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenizer_probe MODEL_DIR < TEXTS\n");
    return 2;
  }
  try {
    const dmc::io::Tokenizer tokenizer(argv[1]);
    for (std::string text; std::getline(std::cin, text, '\0');) {
      for (int32_t id : tokenizer.encode(text, /*parse_special=*/true)) std::cout << id << ' ';
      std::cout << '\n';
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenizer_probe: %s\n", error.what());
    return 1;
  }
}
