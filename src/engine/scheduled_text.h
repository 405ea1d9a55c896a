// What the scheduler (scheduler.h) keeps of each request while it is served.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/logit_rules.h"
#include "engine/model_runner.h"
#include "engine/request.h"

namespace dmc::engine {

struct ScheduledJob {
  std::shared_ptr<Request> request;
  int64_t number;         // by arrival
  int64_t rated = 0;      // tokens of the prompt whose logits have been used
  bool admitted = false;  // its listener knows
  bool branched = false;  // all choices are texts of their own
  bool over = false;      // its listener hears no more
};

// One choice of a request.
struct ScheduledText {
  std::shared_ptr<ScheduledJob> job;
  int64_t choice;
  RuledLogits rules;
  std::vector<int32_t> written = {};
  std::optional<Sequence> sequence = {};  // none while it waits
  int64_t taken = 0;                      // tokens of prompt and text that it has taken in
  int64_t branch = 0;  // tokens of the prompt behind which others go on otherwise
  bool ended = false;

  const Request& request() const { return *job->request; }
  int64_t prompt_size() const { return std::ssize(job->request->prompt); }
  int64_t size() const { return prompt_size() + std::ssize(written); }
  int64_t left() const { return job->request->options.max_tokens - std::ssize(written); }
  bool decodes() const { return taken + 1 == size() && taken >= prompt_size(); }
  bool rates_prompt() const {
    return request().options.prompt_logprobs && job->rated < prompt_size();
  }
  // Where every logit is wanted nothing can be skipped, and another ratio leaves another cache.
  bool shares_prompt() const { return !rates_prompt() && request().options.held_cr == 0.0; }
  std::pair<int64_t, int64_t> place() const { return {job->number, choice}; }
};

// What a text takes in during a step, and the logits it gets for it.
struct StepPart {
  ScheduledText* text;
  std::span<const int32_t> tokens;
  Wanted logits;
  std::span<const float> rows = {};

  bool ends_prompt() const {
    return text->taken < text->prompt_size() &&
           text->taken + std::ssize(tokens) == text->prompt_size();
  }
  bool completes() const { return text->taken + std::ssize(tokens) == text->size(); }
};

struct Drawing {
  ScheduledText* text;
  std::span<const float> row;
  WrittenToken token = {};
  std::optional<Error> error = {};
};

}  // namespace dmc::engine
