// What a generated text cost, as `dmc run` reports it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/generate.h"
#include "runtime/runner.h"

namespace dmc::cli {

struct Statistics {
  int64_t tokens, slots, streams, bytes;  // of the cache; slots over all streams (layer, KV head)
  int64_t prompt_tokens;                  // taken in before the text
  double cr, prefill_rate, decode_rate;   // tokens a second
};

// `prompt_tokens` were taken in for `generation`, which ended with `sequence`.
Statistics statistics(const runtime::Runner& runner, engine::SequenceId sequence,
                      int64_t prompt_tokens, const engine::Generation& generation);

void print_statistics(const Statistics& s, engine::StopReason stop);  // a line on standard error

nlohmann::ordered_json to_json(const Statistics& s, const engine::Generation& generation,
                               const std::string& text);

}  // namespace dmc::cli
