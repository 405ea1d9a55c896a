#include "eval/tasks/recall.h"

#include <algorithm>
#include <map>
#include <string>

#include "base/error.h"
#include "eval/log_probs.h"
#include "eval/predictions.h"
#include "eval/tasks/statistics.h"

namespace dmc::eval {
namespace {

constexpr size_t kDistance = 256;
constexpr size_t kShortest = 5;  // shorter names are often repeated by chance

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_identifier(std::string_view word) {
  return word.size() >= kShortest && !(word[0] >= '0' && word[0] <= '9');
}

// The tokens' bytes, and for each byte the token it is of.
struct Spelling {
  std::string text;
  std::vector<size_t> token_of;
};

Spelling spell(const text::Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  Spelling spelling;
  for (size_t i = 0; i < tokens.size(); ++i) {
    spelling.text += tokenizer.token_bytes(tokens[i]);
    spelling.token_of.resize(spelling.text.size(), i);
  }
  return spelling;
}

// Tokens [begin, end) of a window are one document, or what is there of it.
void find_in_document(const text::Tokenizer& tokenizer, std::span<const int32_t> tokens,
                      size_t begin, size_t end, size_t distance, std::vector<Recall>* recalls) {
  const Spelling spelling = spell(tokenizer, tokens.subspan(begin, end - begin));
  const std::string_view text = spelling.text;
  std::map<std::string_view, size_t> last_seen;  // end of the occurrence, in tokens
  for (size_t at = 0; at < text.size();) {
    const size_t word_end =
        static_cast<size_t>(std::ranges::find_if_not(text.substr(at), is_word) - text.begin());
    if (word_end == at) {
      ++at;
      continue;
    }
    const std::string_view word = text.substr(at, word_end - at);
    if (is_identifier(word)) {
      const Recall found{begin + spelling.token_of[at],
                         begin + spelling.token_of[word_end - 1] + 1};
      const auto seen = last_seen.find(word);
      if (seen != last_seen.end() && found.first >= seen->second + distance) {
        recalls->push_back(found);
      }
      last_seen[word] = found.last;
    }
    at = word_end;
  }
}

// Ratings of each token of `tokens` but the first, which is given.
std::vector<LogLikelihood> rate_all(const TaskInput& input, std::span<const int32_t> tokens,
                                    CacheUse* cache_use) {
  const auto sequence = Sequence::add(input.runner);
  std::vector<LogLikelihood> ratings(1);
  for_each_prediction(input.runner, sequence, tokens.first(tokens.size() - 1),
                      [&](size_t i, std::span<const float> logits) {
                        ratings.push_back(rate(logits, tokens[i + 1]));
                      });
  if (cache_use != nullptr) cache_use->add(input.runner, sequence, tokens.size() - 1);
  return ratings;
}

struct Values {
  std::vector<double> local_loss, loss, acc;  // by token
  std::vector<double> names;                  // by identifier
};

void add(const TaskInput& input, std::span<const int32_t> window, const Recall& recall,
         std::span<const LogLikelihood> ratings, Values* values) {
  bool all = true;
  for (size_t i = recall.first; i < recall.last; ++i) {
    values->loss.push_back(-ratings[i].log_prob);
    values->acc.push_back(ratings[i].greedy);
    all = all && ratings[i].greedy;
  }
  values->names.push_back(all);

  const size_t begin = recall.first - std::min(recall.first, kDistance);
  const auto local = rate_all(input, window.subspan(begin, recall.last - begin), nullptr);
  for (size_t i = recall.first; i < recall.last; ++i) {
    values->local_loss.push_back(-local[i - begin].log_prob);
  }
}

}  // namespace

std::vector<Recall> find_recalls(const text::Tokenizer& tokenizer, std::span<const int32_t> tokens,
                                 size_t distance, std::span<const int64_t> end_of_text) {
  std::vector<Recall> recalls;
  const auto ends = [&](int32_t token) {
    return std::ranges::find(end_of_text, token) != end_of_text.end();
  };
  for (size_t begin = 0; begin < tokens.size();) {
    const auto end = static_cast<size_t>(
        std::find_if(tokens.begin() + static_cast<ptrdiff_t>(begin), tokens.end(), ends) -
        tokens.begin());
    find_in_document(tokenizer, tokens, begin, end, distance, &recalls);
    begin = end + 1;
  }
  return recalls;
}

TaskScore run_recall(const TaskInput& input) {
  DMC_CHECK(input.text != nullptr);
  const auto& windows = input.text->tokens;
  CacheUse cache_use;
  Values values;
  for (size_t i = 0; i < windows.size(); ++i) {
    const auto recalls = find_recalls(input.tokenizer, windows[i], kDistance, input.end_of_text);
    if (!recalls.empty()) {
      const auto ratings = rate_all(input, windows[i], &cache_use);
      for (const Recall& recall : recalls) add(input, windows[i], recall, ratings, &values);
    }
    input.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(windows.size()));
  }
  if (values.names.empty()) {
    throw data_error("task recall: no name in the text comes again after " +
                     std::to_string(kDistance) + " tokens or more; give more or longer --windows");
  }
  return {static_cast<int64_t>(values.names.size()),
          {mean_metric("local_loss", values.local_loss), mean_metric("loss", values.loss),
           mean_metric("names", values.names), mean_metric("acc", values.acc)},
          cache_use.compression_ratio()};
}

}  // namespace dmc::eval
