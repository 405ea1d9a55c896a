// Log-likelihoods of continuations given contexts, from compressed caches.
//
// Tokens are cut as lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness, version
// 0.4.13) cuts them, so that scores can be compared: white space at a context's end goes to the
// continuation; context and context + continuation are tokenized apart, and what the second has
// beyond the first one's length is the continuation; both get the tokens that the model wants
// around a prompt (BOS); a text that is too long loses its beginning.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/model_runner.h"
#include "eval/cache_use.h"
#include "eval/log_probs.h"
#include "text/tokenizer.h"

namespace dmc::eval {

struct TokenPair {
  std::vector<int32_t> context, continuation;
};

// `context` without white space at its end must not be empty.
TokenPair encode_pair(const text::Tokenizer& tokenizer, const std::string& context,
                      const std::string& continuation);

class ContinuationScorer {
 public:
  // Both must outlive it.
  ContinuationScorer(engine::ModelRunner& runner, const text::Tokenizer& tokenizer)
      : runner_(runner), tokenizer_(tokenizer) {}

  using Tokens = std::span<const int32_t>;

  // Rates each continuation of `context`. The context is taken in once and forked. `beginning`, a
  // part of the context that other calls share (few-shot examples), is kept between calls.
  // Error(kData) if a continuation is empty or alone longer than the model's context.
  std::vector<LogLikelihood> score(const std::string& context,
                                   const std::vector<std::string>& continuations,
                                   const std::string& beginning = "");
  // The same of tokens, none of them without; a continuation has max_positions() at most.
  std::vector<LogLikelihood> score_tokens(Tokens context,
                                          const std::vector<std::vector<int32_t>>& continuations,
                                          const std::string& beginning = "");

  double compression_ratio() const { return cache_use_.compression_ratio(); }  // of all scored

 private:
  // Tokens taken in, and the logits of what may follow them.
  struct Trunk {
    Sequence sequence;
    size_t tokens;
    std::vector<float> next;
  };
  struct Beginning {
    std::string text;
    std::vector<int32_t> tokens;
    Sequence sequence;
  };
  const Beginning& keep_beginning(const std::string& text, Tokens context);
  Trunk take_in(Tokens context, const std::string& beginning);
  LogLikelihood rate_branch(const Trunk& trunk, Tokens continuation);

  engine::ModelRunner& runner_;
  const text::Tokenizer& tokenizer_;
  std::optional<Beginning> beginning_;
  CacheUse cache_use_;
};

}  // namespace dmc::eval
