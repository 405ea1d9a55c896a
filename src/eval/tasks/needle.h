// Needle in a haystack: a fact put somewhere into long text is asked for at its end.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/rng.h"
#include "eval/tasks/task.h"

namespace dmc::eval {

struct NeedlePrompt {
  std::vector<int32_t> tokens;  // the haystack with its needles, then the question
  std::vector<int32_t> answer;  // the tokens to come
};

// A prompt that fills `length` tokens together with its answer. `haystack` has at least that many
// tokens. The needle that is asked for lies at `depth` (0 the beginning, 1 the end), behind the
// nearest sentence end before; `keys` - 1 others, which differ in what they are about, at random
// places. Error(kData) if `length` is too short for the needles.
NeedlePrompt make_needle_prompt(const text::Tokenizer& tokenizer, std::span<const int32_t> haystack,
                                size_t length, double depth, int keys, Rng& rng);

// Share of answers that greedy decoding finds, over lengths 256, 512, ... up to the model's context
// and five depths; a grid of them, and loss, nats a token of the answer. input.limit prompts a cell
// (4 by default). Haystack: the text file input.file, or all .txt of a folder.
TaskScore run_needle(const TaskInput& input);           // one needle
TaskScore run_needle_multikey(const TaskInput& input);  // four, one of which is asked for

}  // namespace dmc::eval
