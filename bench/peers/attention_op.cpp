// The attention operator alone, ours against llama.cpp's, on the same numbers. All programs take
// turns within each round; a read of plain memory in each round tells what the machine gives.
// Prints one JSON object: milliseconds a layer of every round, as compare.py wants them.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "ggml_attention.h"
#include "machine.h"
#include "our_attention.h"

namespace dmc::peers {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kHeadDim = 128;
constexpr double kLeastData = 256e6;    // bytes of f16 cache a step reads: far beyond any L3 cache
constexpr double kTimedSeconds = 0.05;  // of steps, a program and round
constexpr double kLargestDifference = 0.02;  // of outputs; 8-bit slots round by up to 1/254

struct Heads {
  const char* name;
  int query, kv;
};
constexpr Heads kHeads[] = {{"MHA 32/32", 32, 32}, {"GQA 32/8", 32, 8}};

struct OurFormat {
  const char* name;
  DType type;
};
constexpr OurFormat kOurFormats[] = {
    {"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}, {"int8", DType::kI8}};

struct Options {
  std::vector<int64_t> slots = {4096, 16384};
  int rounds = 7;
  int threads = 2;
};

// One program with one setting.
struct Subject {
  std::string program, setting, format;
  bool huge_pages;
  std::function<std::unique_ptr<Attention>(const Problem&)> make;
  std::unique_ptr<Attention> attention;
  std::vector<double> milliseconds;  // a layer, by round
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Problem make_problem(const Heads& heads, int64_t slots) {
  Problem problem{heads.query, heads.kv, kHeadDim, slots, 0};
  const double layer_bytes = 2.0 * 2.0 * static_cast<double>(slots) * heads.kv * kHeadDim;
  problem.layers = std::clamp(static_cast<int>(std::ceil(kLeastData / layer_bytes)), 2, 8);
  return problem;
}

std::vector<Subject> make_subjects(const Problem& problem, int threads) {
  std::vector<Subject> subjects;
  for (bool huge : {false, true}) {
    const auto add_ggml = [&](const char* setting, const char* type, bool flash) {
      const GgmlOptions options{type, flash, huge, threads};
      subjects.push_back({"llama.cpp", setting, type, huge,
                          [=](const Problem& p) { return ggml_attention(p, options); }});
    };
    add_ggml("-fa 0", "f16", false);
    add_ggml("-fa 1", "f16", true);
    add_ggml("-fa 1", "q8_0", true);
    for (const OurFormat& format : kOurFormats) {
      subjects.push_back({"dmc", "", format.name, huge,
                          [=](const Problem& p) { return our_attention(p, format.type, huge); }});
    }
  }
  for (Subject& subject : subjects) subject.attention = subject.make(problem);
  return subjects;
}

// The first step is not timed: it wakes the threads and lets another library's go to sleep.
double milliseconds_per_layer(Attention& attention, int layers) {
  attention.step();
  int steps = 0;
  const auto start = Clock::now();
  do {
    attention.step();
    ++steps;
  } while (seconds_since(start) < kTimedSeconds);
  return 1e3 * seconds_since(start) / (steps * layers);
}

// Programs that do not compute the same are not worth comparing.
void require_same_output(const std::vector<Subject>& subjects, int layers) {
  const auto expected = subjects.front().attention->output(layers - 1);
  for (const Subject& subject : subjects) {
    const auto found = subject.attention->output(layers - 1);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (!(std::abs(found[i] - expected[i]) < kLargestDifference)) {
        throw internal_error(subject.program + " " + subject.setting + " " + subject.format +
                             ": output " + std::to_string(i) + " is " + std::to_string(found[i]) +
                             ", expected " + std::to_string(expected[i]));
      }
    }
  }
}

nlohmann::ordered_json measure(const Heads& heads, int64_t slots, const Options& options) {
  const Problem problem = make_problem(heads, slots);
  std::vector<Subject> subjects = make_subjects(problem, options.threads);
  std::vector<double> bandwidth;
  for (int round = 0; round < options.rounds; ++round) {
    bandwidth.push_back(bench::read_bandwidth() / 1e9);
    for (Subject& subject : subjects) {
      subject.milliseconds.push_back(milliseconds_per_layer(*subject.attention, problem.layers));
    }
    if (round == 0) require_same_output(subjects, problem.layers);
    std::cerr << "attention: " << heads.name << ", " << slots << " slots, round " << round + 1
              << " of " << options.rounds << "\n";
  }
  auto rows = nlohmann::ordered_json::array();
  for (const Subject& subject : subjects) {
    rows.push_back({{"program", subject.program},
                    {"setting", subject.setting},
                    {"format", subject.format},
                    {"huge_pages", subject.huge_pages},
                    {"milliseconds_per_layer", subject.milliseconds}});
  }
  return {{"heads", heads.name},
          {"slots", slots},
          {"layers", problem.layers},
          {"numbers_per_layer", 2 * slots * heads.kv * kHeadDim},
          {"read_gigabytes_per_second", bandwidth},
          {"results", rows}};
}

int run(const Options& options) {
  set_num_threads(options.threads);
  auto cases = nlohmann::ordered_json::array();
  for (const Heads& heads : kHeads) {
    for (int64_t slots : options.slots) cases.push_back(measure(heads, slots, options));
  }
  std::cout << nlohmann::ordered_json{{"threads", options.threads}, {"cases", cases}}.dump()
            << "\n";
  return 0;
}

}  // namespace
}  // namespace dmc::peers

int main(int argc, char** argv) {
  CLI::App app("decode attention alone, ours against llama.cpp's; prints JSON");
  dmc::peers::Options options;
  app.add_option("--slots", options.slots, "tokens in the cache, multiples of 256")
      ->delimiter(',')
      ->check(CLI::Range(256, 1 << 20))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "times each program has its turn")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "cores to use")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return dmc::peers::run(options);
  } catch (const dmc::Error& error) {
    std::cerr << "attention_op: " << error.what() << "\n";
    return dmc::exit_code(error.code());
  }
}
