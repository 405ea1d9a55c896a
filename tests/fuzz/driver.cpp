// A small coverage-guided fuzzer for g++, which has no libFuzzer: mutates inputs and keeps those
// that reach code no input reached before.
//
//   fuzz_TARGET SECONDS PATH...
//
// Every file at or under the PATHs runs as it is, then mutations of them for SECONDS. The random
// numbers are seeded, so runs differ only in how far they get. A sanitizer's report, an exception
// that is no dmc::Error and an input that takes more time or memory than the target's limits are
// findings: the input is written to crash-TARGET in the working directory, and the program ends
// with an error.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "base/rng.h"
#include "tests/fuzz/target.h"

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*,
                                                                           size_t),
                                                         void (*on_free)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* pointer);
extern "C" void __sanitizer_set_death_callback(void (*callback)());
extern "C" void __sanitizer_cov_trace_pc();

namespace {

namespace fs = std::filesystem;

constexpr size_t kLargestInput = size_t{1} << 16;
using dmc::fuzz::kLimits;

// Which edges between basic blocks have ever been taken, by a hash of their two ends.
uint8_t seen_edges[1 << 16];
uintptr_t last_block = 0;
size_t new_edges = 0;

std::string current_input, crash_file;

void save_current_input() {
  std::ofstream(crash_file, std::ios::binary) << current_input;
  std::fprintf(stderr, "the input is in %s\n", crash_file.c_str());
}

// Bytes that are allocated now, and were when the input began. Threads of a pool may allocate too.
std::atomic<size_t> allocated = 0;
size_t allocated_before = 0;
bool running = false;

void count_malloc(const volatile void*, size_t size) {
  allocated += size;
  if (!running || allocated <= allocated_before + (kLimits.megabytes << 20)) return;
  running = false;
  std::fprintf(stderr, "one input takes more than %zu MB\n", kLimits.megabytes);
  save_current_input();
  std::_Exit(1);
}

void count_free(const volatile void* pointer) {
  if (pointer != nullptr) allocated -= __sanitizer_get_allocated_size(pointer);
}

void run_input(const std::string& input) {
  current_input = input;
  last_block = 0;
  alarm(kLimits.seconds);
  allocated_before = allocated;
  running = true;
  try {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "an exception that is no dmc::Error: %s\n", error.what());
    save_current_input();
    std::_Exit(1);
  }
  running = false;
  alarm(0);
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& corpus) : corpus_(corpus) {}

  // Whole words and bytes that stand in the seeds; what to insert beside random bytes.
  void learn_words(const std::string& text) {
    std::string word;
    for (char c : text + " ") {
      const bool part = std::isalnum(static_cast<unsigned char>(c)) || c == '_';
      if (part) {
        word += c;
      } else {
        if (word.size() > 1 && word.size() < 40 && unique_words_.insert(word).second) {
          words_.push_back(word);
        }
        word.clear();
      }
    }
  }

  std::string mutated() {
    std::string input = corpus_[below(corpus_.size())];
    for (size_t n = 1 + below(6); n > 0; --n) mutate(&input);
    if (input.size() > kLargestInput) input.resize(kLargestInput);
    return input;
  }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : rng_.below(n); }

  void mutate(std::string* input) {
    const size_t at = below(input->size() + 1), most = input->size() - at;
    switch (below(9)) {
      case 0:
        if (most > 0) (*input)[at] = static_cast<char>((*input)[at] ^ 1 << below(8));
        break;
      case 1:
        if (most > 0) (*input)[at] = static_cast<char>(below(256));
        break;
      case 2:
        input->erase(at, below(std::min<size_t>(most, 64) + 1));
        break;
      case 3:
        input->insert(at, 1 + below(8), static_cast<char>(below(256)));
        break;
      case 4:  // a stretch once more
        input->insert(at, input->substr(below(input->size() + 1), below(64)));
        break;
      case 5:
        splice(input, at);
        break;
      case 6:
        if (!words_.empty()) input->insert(at, words_[below(words_.size())]);
        break;
      case 7:
        input->insert(at, kTroublesome[below(std::size(kTroublesome))]);
        break;
      default:
        replace_number(input);
    }
  }

  // A stretch of another input.
  void splice(std::string* input, size_t at) {
    const std::string& other = corpus_[below(corpus_.size())];
    const size_t from = below(other.size() + 1);
    input->replace(at, below(32), other.substr(from, below(128)));
  }

  void replace_number(std::string* input) {
    const size_t from = input->find_first_of("0123456789", below(input->size() + 1));
    if (from == std::string::npos) return;
    size_t end = from;
    while (end < input->size() && std::isdigit(static_cast<unsigned char>((*input)[end]))) ++end;
    input->replace(from, end - from, kNumbers[below(std::size(kNumbers))]);
  }

  static constexpr const char* kNumbers[] = {"0",          "-1",
                                             "1",          "2147483647",
                                             "4294967296", "9223372036854775807",
                                             "1e308",      "18446744073709551615",
                                             "64",         "0.5",
                                             "null",       "-9223372036854775808"};
  static constexpr const char* kTroublesome[] = {
      "\"",           "{",  "}",  "[",    "]",    "[[[[[[[[", "{\"a\":", "\\u0000", "\xff",
      "\xed\xa0\x80", "|",  "{{", "}}",   "{%",   "%}",       "{#",      "#}",      "-%}",
      "(((((((",      "\n", " ",  "null", "true", "▁"};

  const std::vector<std::string>& corpus_;
  std::vector<std::string> words_;
  std::set<std::string> unique_words_;
  dmc::Rng rng_{1};
};

std::vector<std::string> read_inputs(int count, char** paths) {
  std::vector<fs::path> files;
  for (int i = 0; i < count; ++i) {
    if (fs::is_directory(paths[i])) {
      for (const auto& entry : fs::recursive_directory_iterator(paths[i])) {
        if (entry.is_regular_file()) files.push_back(entry.path());
      }
    } else {
      files.emplace_back(paths[i]);
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "cannot read %s\n", file.c_str());
      std::exit(2);
    }
    inputs.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return inputs;
}

}  // namespace

// g++ calls this at each basic block of what it instruments (-fsanitize-coverage=trace-pc).
void __sanitizer_cov_trace_pc() {
  const auto block = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& seen = seen_edges[(block >> 1 ^ last_block) % std::size(seen_edges)];
  new_edges += !seen;
  seen = 1;
  last_block = block >> 4;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s SECONDS PATH...\n", argv[0]);
    return 2;
  }
  const std::string name = fs::path(argv[0]).filename();
  crash_file = "crash-" + name;
  __sanitizer_set_death_callback(save_current_input);
  __sanitizer_install_malloc_and_free_hooks(count_malloc, count_free);
  signal(SIGALRM, [](int) {
    std::fprintf(stderr, "one input takes more than %u s\n", kLimits.seconds);
    save_current_input();
    std::_Exit(1);
  });

  std::vector<std::string> corpus = read_inputs(argc - 2, argv + 2);
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: no input to start from\n", name.c_str());
    return 2;
  }
  Mutator mutator(corpus);
  for (const std::string& input : corpus) {
    run_input(input);
    mutator.learn_words(input);
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(argv[1]));
  size_t runs = corpus.size();
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    const std::string input = mutator.mutated();
    new_edges = 0;
    run_input(input);
    if (new_edges > 0) corpus.push_back(input);
  }
  std::printf("%s: %zu inputs, %zu of them reach something new, no finding\n", name.c_str(), runs,
              corpus.size());
  return 0;
}
