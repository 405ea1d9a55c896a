// The README.md of a retrofitted model: what it is, what it was made from and how.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/method.h"

namespace dmc::train {

// What came out, on held-out text, beside what could be had without training.
struct Verdict {
  struct Line {
    std::string what;
    double cr = 1.0, loss = 0.0;  // nats per token
    std::vector<std::vector<double>> cr_by_head;
  };
  std::vector<Line> lines;  // the start, the result, then the others
  std::string text;         // that was used, as "32 windows of 512 tokens"
  std::string advice;       // a sentence: which one to use

  bool empty() const { return lines.empty(); }
  const Line& result() const { return lines.at(1); }
};

struct ModelCard {
  std::string base_model;    // as the user named it
  std::string architecture;  // of the result, e.g. "DmcLlamaForCausalLM"
  std::string data;
  const Method* method = find_method("dmc");
  std::string decisions;  // what takes them
  double target_cr = 1.0;
  int64_t window = 0, delay = 0;   // as in model::DmcConfig
  int64_t tokens = 0, length = 0;  // trained on, in sequences of
  Verdict verdict;                 // what follows is left out where there is one
  // Of the last training step: compression ratio, language-model loss in nats per token, and the
  // ratio by [layer][KV head]. All three are left out if the last one is empty.
  double measured_cr = 1.0, loss = 0.0;
  std::vector<std::vector<double>> cr_by_head;
  std::string command;  // empty: not known
};

std::string to_markdown(const ModelCard& card);

}  // namespace dmc::train
