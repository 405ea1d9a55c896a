// loss_probe MODEL f32|bf16|int4|stored: reads windows of token ids from standard input, one a
// line, and prints for each the mean loss of its tokens but the first, as inference computes it.
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>

#include "eval/score.h"
#include "runtime/decoder_runner.h"
#include "runtime/weights.h"

namespace {

std::optional<dmc::DType> weights_type(const std::string& name) {
  if (name == "f32") return dmc::DType::kF32;
  if (name == "bf16") return dmc::DType::kBF16;
  if (name == "int4") return dmc::DType::kI4;
  return std::nullopt;
}

void probe(const std::string& model, const std::string& type) {
  dmc::runtime::RunnerOptions options;
  options.compression.policy = "dense";
  dmc::runtime::DecoderRunner runner(dmc::runtime::load_model(model, weights_type(type)), options);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream numbers(line);
    dmc::text::EvalWindows window{{{}}, {1}};
    for (int32_t id; numbers >> id;) window.tokens[0].push_back(id);
    std::printf("%.9f\n", dmc::eval::score(runner, window, [](int64_t) {}).loss);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: loss_probe MODEL f32|bf16|int4|stored\n");
    return 2;
  }
  try {
    probe(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "loss_probe: %s\n", error.what());
    return 1;
  }
}
