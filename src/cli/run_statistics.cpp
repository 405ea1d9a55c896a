#include "cli/run_statistics.h"

#include <iostream>
#include <numeric>

#include "base/human.h"

namespace dmc::cli {
namespace {

const char* reason_name(engine::StopReason reason) {
  switch (reason) {
    case engine::StopReason::kLength:
      return "length";
    case engine::StopReason::kEndOfText:
      return "end of text";
    case engine::StopReason::kContextFull:
      return "context full";
    case engine::StopReason::kCancelled:
      return "cancelled";
  }
  return "";
}

double per_second(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

}  // namespace

Statistics statistics(const runtime::Runner& runner, engine::SequenceId sequence,
                      int64_t prompt_tokens, const engine::Generation& generation) {
  const std::vector<int64_t> slots = runner.slots(sequence);
  return {runner.length(sequence),
          std::accumulate(slots.begin(), slots.end(), int64_t{0}),
          static_cast<int64_t>(slots.size()),
          runner.cache_bytes(),
          prompt_tokens,
          runner.compression_ratio(sequence),
          per_second(prompt_tokens, generation.prefill_seconds),
          per_second(generation.taken_in, generation.decode_seconds)};
}

void print_statistics(const Statistics& s, engine::StopReason stop) {
  std::cerr << s.tokens << " tokens seen, "
            << fixed(static_cast<double>(s.slots) / static_cast<double>(s.streams), 1)
            << " slots kept a head, CR " << fixed(s.cr, 2) << ", cache "
            << human_bytes(static_cast<double>(s.bytes)) << "; prefill "
            << human_count(s.prefill_rate) << " tok/s, decode " << human_count(s.decode_rate)
            << " tok/s; stopped: " << reason_name(stop) << "\n";
}

nlohmann::ordered_json to_json(const Statistics& s, const engine::Generation& generation,
                               const std::string& text) {
  return {{"text", text},
          {"token_ids", generation.tokens},
          {"stop", reason_name(generation.stop)},
          {"prompt_tokens", s.prompt_tokens},
          {"tokens", s.tokens},
          {"slots", s.slots},
          {"streams", s.streams},
          {"compression_ratio", s.cr},
          {"cache_bytes", s.bytes},
          {"prefill_tokens_per_second", s.prefill_rate},
          {"decode_tokens_per_second", s.decode_rate}};
}

}  // namespace dmc::cli
