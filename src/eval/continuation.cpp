#include "eval/continuation.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/quoted.h"
#include "text/strings.h"

namespace dmc::eval {

TokenPair encode_pair(const text::Tokenizer& tokenizer, const std::string& context,
                      const std::string& continuation) {
  const std::string text(text::right_stripped(context));
  const std::string rest = context.substr(text.size()) + continuation;
  TokenPair pair{tokenizer.encode_prompt(text), tokenizer.encode_prompt(text + rest)};
  const size_t cut = std::min(pair.context.size(), pair.continuation.size());
  pair.continuation.erase(pair.continuation.begin(),
                          pair.continuation.begin() + static_cast<ptrdiff_t>(cut));
  return pair;
}

const ContinuationScorer::Beginning& ContinuationScorer::keep_beginning(const std::string& text,
                                                                        Tokens context) {
  const auto fits = [&](const Beginning& kept) {
    return kept.text == text && kept.tokens.size() < context.size() &&
           std::ranges::equal(kept.tokens, context.first(kept.tokens.size()));
  };
  if (beginning_ && fits(*beginning_)) return *beginning_;

  // The tokens at the seam may differ from context to context; the last one of the context is left
  // to take_in().
  const std::vector<int32_t> tokens = tokenizer_.encode_prompt(text);
  const Tokens all_but_last = context.first(context.size() - 1);
  const auto common = std::ranges::mismatch(tokens, all_but_last).in1 - tokens.begin();
  beginning_.emplace(text, std::vector<int32_t>(tokens.begin(), tokens.begin() + common),
                     Sequence::add(runner_));
  if (common > 0) engine::prefill(runner_, beginning_->sequence.id(), beginning_->tokens);
  return *beginning_;
}

ContinuationScorer::Trunk ContinuationScorer::take_in(Tokens context,
                                                      const std::string& beginning) {
  if (beginning.empty()) {
    Trunk trunk{Sequence::add(runner_), context.size(), {}};
    trunk.next = engine::prefill(runner_, trunk.sequence.id(), context);
    return trunk;
  }
  const Beginning& kept = keep_beginning(beginning, context);
  Trunk trunk{kept.sequence.fork(), context.size(), {}};
  trunk.next = engine::prefill(runner_, trunk.sequence.id(), context.subspan(kept.tokens.size()));
  return trunk;
}

LogLikelihood ContinuationScorer::rate_branch(const Trunk& trunk, Tokens continuation) {
  const LogLikelihood first = rate(trunk.next, continuation[0]);
  if (continuation.size() == 1) {
    cache_use_.add(runner_, trunk.sequence, trunk.tokens);
    return first;
  }
  const Sequence branch = trunk.sequence.fork();
  const Tokens taken_in = continuation.first(continuation.size() - 1);
  const std::vector<float> logits = engine::prefill_logits(runner_, branch.id(), taken_in);
  cache_use_.add(runner_, branch, trunk.tokens + taken_in.size());
  return first + rate_run(logits, continuation.subspan(1));
}

std::vector<LogLikelihood> ContinuationScorer::score(const std::string& context,
                                                     const std::vector<std::string>& continuations,
                                                     const std::string& beginning) {
  constexpr size_t kShown = 40;  // characters of each text in a sentence
  const auto longest = static_cast<size_t>(runner_.max_positions());
  std::vector<int32_t> context_tokens;
  std::vector<std::vector<int32_t>> tokens;
  for (const std::string& continuation : continuations) {
    TokenPair pair = encode_pair(tokenizer_, context, continuation);
    if (pair.context.empty() || pair.continuation.empty() || pair.continuation.size() > longest) {
      throw data_error(in_quotes(continuation, kShown) + " after " + in_quotes(context, kShown) +
                       " cannot be scored: both must have tokens, and the former at most " +
                       std::to_string(longest) + ", found " +
                       std::to_string(pair.continuation.size()));
    }
    context_tokens = std::move(pair.context);  // the same for each
    tokens.push_back(std::move(pair.continuation));
  }
  return score_tokens(context_tokens, tokens, beginning);
}

std::vector<LogLikelihood> ContinuationScorer::score_tokens(
    Tokens context, const std::vector<std::vector<int32_t>>& continuations,
    const std::string& beginning) {
  // The last token of a continuation is only predicted, so one more than the context fits.
  const auto longest = static_cast<size_t>(runner_.max_positions()) + 1;
  std::map<size_t, Trunk> trunks;  // by how much of the context's end is kept
  std::vector<LogLikelihood> ratings;
  for (const std::vector<int32_t>& continuation : continuations) {
    const size_t kept = std::min(context.size(), longest - continuation.size());
    auto trunk = trunks.find(kept);
    if (trunk == trunks.end()) {
      const bool whole = kept == context.size();
      trunk = trunks.emplace(kept, take_in(context.last(kept), whole ? beginning : "")).first;
    }
    ratings.push_back(rate_branch(trunk->second, continuation));
  }
  return ratings;
}

}  // namespace dmc::eval
