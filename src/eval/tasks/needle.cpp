#include "eval/tasks/needle.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "eval/cache_use.h"
#include "eval/data_file.h"
#include "eval/log_probs.h"
#include "eval/tasks/statistics.h"
#include "text/packed_file.h"

namespace dmc::eval {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 16> kPlaces = {
    "Lisbon", "Oslo",   "Cairo",  "Lima",   "Quito",  "Tokyo",  "Delhi",  "Accra",
    "Berlin", "Warsaw", "Vienna", "Prague", "Dublin", "Havana", "Athens", "Madrid"};
constexpr double kDepths[] = {0.0, 0.25, 0.5, 0.75, 1.0};
constexpr size_t kShortest = 256;
constexpr int64_t kPromptsPerCell = 4;

struct Needle {
  std::string place, number;
  std::string statement() const { return " The secret number of " + place + " is " + number + "."; }
  std::string question() const { return "\nThe secret number of " + place + " is"; }
};

std::vector<Needle> make_needles(int keys, Rng& rng) {
  std::array<std::string_view, kPlaces.size()> places = kPlaces;
  std::vector<Needle> needles;
  for (size_t i = 0; i < static_cast<size_t>(keys); ++i) {
    std::swap(places[i], places[i + rng.below(places.size() - i)]);
    needles.push_back({std::string(places[i]), std::to_string(1000000 + rng.below(9000000))});
  }
  return needles;
}

// The nearest place at or before `position` that is behind the end of a sentence; 0 if there is
// none.
size_t sentence_end(const text::Tokenizer& tokenizer, std::span<const int32_t> haystack,
                    size_t position) {
  while (position > 0) {
    const std::string_view bytes = tokenizer.token_bytes(haystack[position - 1]);
    if (bytes.find_first_of(".!?\n") != std::string_view::npos) break;
    --position;
  }
  return position;
}

std::string read_haystack(const fs::path& path) {
  if (!fs::is_directory(path)) return text::read_unpacked(path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  std::string text;
  for (const fs::path& file : files) text += text::read_unpacked(file) + "\n";
  return text;
}

// Enough tokens of the text for the longest prompt; it starts over where it is too short.
std::vector<int32_t> haystack_tokens(const TaskInput& input) {
  const auto wanted = static_cast<size_t>(input.runner.max_positions()) + 1;
  constexpr size_t kBytesPerToken = 16;  // more than tokenizers give; the rest is not needed
  const std::string text = read_haystack(input.file).substr(0, wanted * kBytesPerToken);
  const std::vector<int32_t> once = input.tokenizer.encode(text);
  if (once.empty()) throw data_error(input.file.string() + ": there is no text in it");
  std::vector<int32_t> tokens;
  while (tokens.size() < wanted) tokens.insert(tokens.end(), once.begin(), once.end());
  return tokens;
}

LogLikelihood rate_answer(const TaskInput& input, const NeedlePrompt& prompt, CacheUse* cache_use) {
  const auto sequence = Sequence::add(input.runner);
  const std::span<const int32_t> answer = prompt.answer;
  const auto first = rate(engine::prefill(input.runner, sequence.id(), prompt.tokens), answer[0]);
  const auto rest =
      engine::prefill_logits(input.runner, sequence.id(), answer.first(answer.size() - 1));
  cache_use->add(input.runner, sequence, prompt.tokens.size() + answer.size() - 1);
  return first + rate_run(rest, answer.subspan(1));
}

std::vector<size_t> lengths(int64_t max_positions) {
  std::vector<size_t> result;
  for (size_t n = kShortest; n <= static_cast<size_t>(max_positions); n *= 2) result.push_back(n);
  if (result.empty()) {
    throw invalid_argument("task needle needs a model with a context of " +
                           std::to_string(kShortest) + " tokens, this one's is " +
                           std::to_string(max_positions));
  }
  return result;
}

TaskScore score_needles(const TaskInput& input, int keys) {
  const std::vector<int32_t> haystack = haystack_tokens(input);
  const std::vector<size_t> rows = lengths(input.runner.max_positions());
  const int64_t prompts = input.limit > 0 ? input.limit : kPromptsPerCell;
  const auto total = static_cast<int64_t>(rows.size() * std::size(kDepths)) * prompts;
  CacheUse cache_use;
  std::vector<double> found, loss;
  Grid grid{"length", "depth", {}, {}, {}};
  for (double depth : kDepths)
    grid.columns.push_back(std::to_string(std::lround(100 * depth)) + "%");
  Rng rng(0);
  for (size_t length : rows) {
    grid.rows.push_back(std::to_string(length));
    grid.values.emplace_back();
    for (double depth : kDepths) {
      double hits = 0.0;
      for (int64_t i = 0; i < prompts; ++i) {
        const NeedlePrompt prompt =
            make_needle_prompt(input.tokenizer, haystack, length, depth, keys, rng);
        const LogLikelihood rating = rate_answer(input, prompt, &cache_use);
        hits += rating.greedy;
        found.push_back(rating.greedy);
        loss.push_back(-rating.log_prob / static_cast<double>(prompt.answer.size()));
        input.progress(static_cast<int64_t>(found.size()), total);
      }
      grid.values.back().push_back(hits / static_cast<double>(prompts));
    }
  }
  return {total,
          {mean_metric("loss", loss), mean_metric("acc", found)},
          cache_use.compression_ratio(),
          {grid}};
}

}  // namespace

NeedlePrompt make_needle_prompt(const text::Tokenizer& tokenizer, std::span<const int32_t> haystack,
                                size_t length, double depth, int keys, Rng& rng) {
  const std::vector<Needle> needles = make_needles(keys, rng);
  const std::vector<int32_t> question = tokenizer.encode(needles[0].question());
  NeedlePrompt prompt{{}, tokenizer.encode(" " + needles[0].number)};
  std::vector<std::vector<int32_t>> statements;
  size_t taken = question.size() + prompt.answer.size();
  for (const Needle& needle : needles) {
    statements.push_back(tokenizer.encode(needle.statement()));
    taken += statements.back().size();
  }
  if (taken > length) {
    throw data_error("a prompt of " + std::to_string(length) + " tokens is too short for " +
                     std::to_string(keys) + " needles, which take " + std::to_string(taken));
  }
  const auto hay = haystack.first(length - taken);

  // (place, needle), in the order of places; the one that is asked for comes first.
  std::vector<std::pair<size_t, size_t>> places;
  for (size_t i = 0; i < needles.size(); ++i) {
    const double at = i == 0 ? depth : rng.uniform();
    const auto position = static_cast<size_t>(at * static_cast<double>(hay.size()));
    places.emplace_back(sentence_end(tokenizer, hay, position), i);
  }
  std::ranges::sort(places);
  size_t done = 0;
  for (const auto& [place, needle] : places) {
    prompt.tokens.insert(prompt.tokens.end(), hay.begin() + static_cast<ptrdiff_t>(done),
                         hay.begin() + static_cast<ptrdiff_t>(place));
    prompt.tokens.insert(prompt.tokens.end(), statements[needle].begin(), statements[needle].end());
    done = place;
  }
  prompt.tokens.insert(prompt.tokens.end(), hay.begin() + static_cast<ptrdiff_t>(done), hay.end());
  prompt.tokens.insert(prompt.tokens.end(), question.begin(), question.end());
  return prompt;
}

TaskScore run_needle(const TaskInput& input) { return score_needles(input, 1); }
TaskScore run_needle_multikey(const TaskInput& input) { return score_needles(input, 4); }

}  // namespace dmc::eval
