// What the demonstrations set side by side, and what they find out about each.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "report/report.h"
#include "runtime/measure.h"
#include "text/corpus.h"

namespace dmc::cli {

// How much a demonstration measures.
struct DemoSize {
  int64_t windows = 0;  // of held-out text
  int64_t length = 0;   // tokens of a window, and of the cache whose bytes are compared
  runtime::MeasureOptions measure;
};

// A model and how it compresses.
struct Contender {
  std::string name;
  std::filesystem::path dir;
  runtime::PlacedModel placed;
  runtime::RunnerOptions options = {};
};

// A step of the demonstration, as a headline on the terminal.
void say(const std::string& text);

// Quality, slots and a sample of text, with a progress bar; windows are all of one length. The
// sample goes on with `prompt`, or answers it where the model has a chat template.
report::Variant describe(const Contender& contender, const text::EvalWindows& windows,
                         const std::string& prompt);

// Speed of all, in turn, into their variants.
void add_speed(const std::vector<Contender>& contenders, const DemoSize& size,
               std::vector<report::Variant>* variants);

void print_summary(const std::vector<report::Variant>& variants, int64_t cache_context);
void print_map(const report::Variant& variant);  // of its ratios, by layer and head

// Rows of the report about a model.
std::vector<std::pair<std::string, std::string>> model_facts(const runtime::Model& model);

}  // namespace dmc::cli
