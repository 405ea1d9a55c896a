// What is asked of the scheduler, and how it answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/stopwatch.h"
#include "engine/logit_rules.h"
#include "engine/sampler.h"

namespace dmc::engine {

struct RequestOptions {
  SamplingOptions sampling;
  LogitRules rules;
  std::vector<int64_t> stop_ids;  // a text ends with one of these
  int64_t max_tokens = 16;        // 0: the prompt is taken in, and rated if that is asked for
  int64_t choices = 1;            // texts that continue the prompt, each with a seed of its own
  // How many of the likeliest tokens are listed beside each token; nothing: no token is rated.
  std::optional<int64_t> logprobs, prompt_logprobs;
  bool report_cache = false;  // with each token
  double held_cr = 0.0;       // ratio that the cache is held at; 0: the scheduler's
};

// What a text has in the cache.
struct CacheUse {
  int64_t tokens = 0;            // taken in
  double compression_ratio = 1;  // tokens by slots, the mean over layers and KV heads
  std::vector<int64_t> slots;    // [layers * kv_heads]; empty where the runner does not say
  double held_cr = 0.0;          // that new tokens are compressed for; 0: the model decides
};

struct WrittenToken {
  int32_t token;
  bool stop = false;  // one of the stop ids, which the text ends with
  bool last = false;  // the text ends here, by this or by its length
  std::optional<Logprobs> logprobs;
  std::optional<CacheUse> cache;  // before the token itself
};

enum class FinishReason { kStop, kLength };

struct Ending {
  FinishReason reason;
  std::optional<int32_t> stop_token;
  CacheUse cache;
};

// Hears of one request. Called by the thread that runs the scheduler, which waits meanwhile.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  // The request will be served; what can be known to be wrong with it has been said by now.
  // `cached` tokens of the prompt need not be computed. Called once, before all else but failed().
  virtual void admitted(int64_t /*cached*/) {}
  // Of the prompt's second token and those after it, in order, in portions.
  virtual void prompt_rated(std::span<const Logprobs>) {}
  // Returns whether the choice ends here (a stop string was found).
  virtual bool token(int64_t choice, const WrittenToken& token) = 0;
  virtual void ended(int64_t choice, const Ending& ending) = 0;
  // Nothing comes after it.
  virtual void failed(const Error& error) = 0;
};

class Request {
 public:
  Request(std::vector<int32_t> tokens, RequestOptions asked, std::shared_ptr<RequestListener> hears)
      : prompt(std::move(tokens)), options(std::move(asked)), listener(std::move(hears)) {}

  const std::vector<int32_t> prompt;
  const RequestOptions options;
  const std::shared_ptr<RequestListener> listener;
  const Stopwatch since;  // it was made

  // From any thread: the request gives back what it holds before the next step, and its listener
  // hears nothing more.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_ = false;
};

}  // namespace dmc::engine
