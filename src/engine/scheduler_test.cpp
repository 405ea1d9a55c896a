#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>

#include "engine/fake_runner.h"

namespace dmc::engine {
namespace {

struct Choice {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  int ends = 0;
  FinishReason reason = FinishReason::kLength;
  std::optional<int32_t> stop_token;
  bool operator==(const Choice&) const = default;
};

// What a request came to.
class Heard : public RequestListener {
 public:
  void admitted(int64_t tokens) override {
    EXPECT_FALSE(was_admitted);
    was_admitted = true, cached = tokens;
  }
  void prompt_rated(std::span<const Logprobs> rows) override {
    for (const Logprobs& row : rows) prompt.push_back(row.token.logprob);
  }
  bool token(int64_t choice, const WrittenToken& token) override {
    EXPECT_TRUE(was_admitted && !muted);
    Choice& of = choices[choice];
    EXPECT_EQ(of.ends, 0);
    of.tokens.push_back(token.token);
    if (token.logprobs) of.logprobs.push_back(token.logprobs->token.logprob);
    return stop_after && std::ssize(of.tokens) == *stop_after;
  }
  void ended(int64_t choice, const Ending& ending) override {
    EXPECT_FALSE(muted);
    Choice& of = choices[choice];
    ++of.ends, of.reason = ending.reason, of.stop_token = ending.stop_token;
    use = ending.cache;
  }
  void failed(const Error& what) override {
    EXPECT_FALSE(error.has_value() || muted);
    error = what;
  }

  std::map<int64_t, Choice> choices;
  std::vector<float> prompt;
  std::optional<Error> error;
  std::optional<int64_t> stop_after;
  CacheUse use;
  int64_t cached = 0;
  bool was_admitted = false, muted = false;
};

struct Asked {
  std::shared_ptr<Heard> heard = std::make_shared<Heard>();
  std::shared_ptr<Request> request;
};

Asked ask(std::vector<int32_t> prompt, RequestOptions options) {
  Asked asked;
  asked.request = std::make_shared<Request>(std::move(prompt), std::move(options), asked.heard);
  return asked;
}

void run_all(Scheduler& scheduler) {
  for (int steps = 0; scheduler.step(); ++steps)
    ASSERT_LT(steps, 100000) << "does not come to an end";
}

constexpr int64_t kChunk = 8;

// What the fakes are like, as FakeRunner's fields.
struct Kind {
  bool prompts_end = true, cuts_matter = false;
};

// The slow twin: one text alone on a cache without limits, its prompt chunk by chunk.
Choice alone(const Request& request, int64_t choice, std::vector<float>* prompt_logprobs,
             const Kind& kind) {
  FakeRunner runner;
  runner.prompts_end = kind.prompts_end, runner.cuts_matter = kind.cuts_matter;
  const SequenceId sequence = runner.add_sequence();
  const RequestOptions& options = request.options;
  std::vector<float> logits;
  const size_t vocab = FakeRunner::kVocab;
  for (size_t begin = 0; begin < request.prompt.size(); begin += kChunk) {
    const size_t size = std::min<size_t>(kChunk, request.prompt.size() - begin);
    const StepItem item{sequence, std::span(request.prompt).subspan(begin, size),
                        begin + size == request.prompt.size(), Wanted::kAll};
    logits = runner.step({&item, 1}).logits;
    for (size_t i = 0; i < size && begin + i + 1 < request.prompt.size(); ++i) {
      const auto row = std::span(logits).subspan(i * vocab, vocab);
      prompt_logprobs->push_back(logprobs_of(row, request.prompt[begin + i + 1], 0).token.logprob);
    }
    logits.erase(logits.begin(), logits.end() - static_cast<long>(vocab));
  }
  Choice result{.ends = 1};
  RuledLogits rules(options.rules, request.prompt, options.stop_ids);
  SamplingOptions sampling = options.sampling;
  sampling.seed = seed_of_choice(sampling.seed, choice);
  for (int64_t n = 0; n < options.max_tokens; ++n) {
    const int64_t position = std::ssize(request.prompt) + n;
    const int32_t token = sample(rules.apply(logits), sampling, position);
    rules.written(token);
    result.tokens.push_back(token);
    if (options.logprobs) result.logprobs.push_back(logprobs_of(logits, token, 0).token.logprob);
    if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) {
      result.reason = FinishReason::kStop, result.stop_token = token;
      break;
    }
    if (position == runner.max_positions()) break;
    const StepItem item{sequence, {&token, 1}};
    logits = runner.step({&item, 1}).logits;
  }
  return result;
}

std::vector<int32_t> random_prompt(Rng& rng, size_t most) {
  std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};  // many begin alike
  prompt.resize(rng.below(2) ? 12 : 0);
  for (size_t n = 1 + rng.below(most); n > 0; --n) {
    prompt.push_back(static_cast<int32_t>(rng.below(FakeRunner::kVocab)));
  }
  return prompt;
}

RequestOptions random_options(Rng& rng) {
  RequestOptions options;
  options.sampling = {.temperature = rng.below(2) ? 0.0 : 1.0, .top_p = 1.0, .seed = rng()};
  options.max_tokens = static_cast<int64_t>(1 + rng.below(40));
  options.choices = static_cast<int64_t>(rng.below(4) ? 1 : 1 + rng.below(4));
  if (rng.below(2)) options.stop_ids = {7, 8};
  if (rng.below(3) == 0) options.rules = {.presence_penalty = 0.5, .min_tokens = 3};
  if (rng.below(3) == 0) options.logprobs = 2;
  if (rng.below(4) == 0) options.prompt_logprobs = 0;
  return options;
}

void expect_as_alone(const Asked& asked, const Kind& kind = {}) {
  const Request& request = *asked.request;
  ASSERT_FALSE(asked.heard->error.has_value()) << asked.heard->error->what();
  ASSERT_EQ(std::ssize(asked.heard->choices), request.options.choices);
  for (const auto& [index, choice] : asked.heard->choices) {
    std::vector<float> prompt;
    ASSERT_EQ(choice, alone(request, index, &prompt, kind)) << "choice " << index;
    if (request.options.prompt_logprobs) {
      ASSERT_EQ(asked.heard->prompt, prompt);
    }
  }
}

struct Setting {
  const char* name;
  int64_t pages, sequences, step_tokens;
  size_t snapshots;
  bool cuts_matter = false;
};

void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.name; }

class Load : public testing::TestWithParam<Setting> {};

// Requests come and go at random, some are cancelled. Those that end are what they are alone, token
// for token, and at the end nobody holds anything.
TEST_P(Load, TextsAreWhatTheyAreAlone) {
  const Setting& setting = GetParam();
  int64_t preemptions = 0, cached = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Rng rng(seed);
    FakeRunner runner(setting.pages, 200, setting.sequences);
    // Snapshots are for policies that do not look at a prompt's end.
    const Kind kind{setting.snapshots == 0, setting.cuts_matter};
    runner.prompts_end = kind.prompts_end, runner.cuts_matter = kind.cuts_matter;
    runner.chunks_pass = true;
    {
      Scheduler scheduler(runner, {.max_sequences = 8,
                                   .step_tokens = setting.step_tokens,
                                   .chunk_tokens = kChunk,
                                   .chunks_matter = setting.cuts_matter,
                                   .growth_tokens = 8,
                                   .snapshots = setting.snapshots});
      std::vector<Asked> all;
      for (int i = 0; i < 60; ++i) {
        all.push_back(ask(random_prompt(rng, 50), random_options(rng)));
        scheduler.submit(all.back().request);
        for (uint64_t steps = rng.below(12); steps > 0; --steps) scheduler.step();
        if (rng.below(5) == 0) all[rng.below(all.size())].request->cancel();
      }
      run_all(scheduler);
      for (const Asked& asked : all) {
        if (!asked.request->cancelled()) expect_as_alone(asked, kind);
        if (HasFatalFailure()) return;
      }
      preemptions += scheduler.counts().preemptions;
      cached += scheduler.counts().cached_tokens;
      EXPECT_EQ(scheduler.load().running + scheduler.load().waiting, 0);
      scheduler.fail_all(internal_error("the end"));  // lets snapshots go, too
      EXPECT_EQ(runner.sequences(), 1u) << "the empty one";
      EXPECT_EQ(runner.free_pages(), runner.total_pages());
    }
    EXPECT_EQ(runner.sequences(), 0u);
  }
  EXPECT_TRUE(setting.pages > 60 || preemptions > 0);
  EXPECT_EQ(cached > 0, setting.snapshots > 0);
}

INSTANTIATE_TEST_SUITE_P(
    Settings, Load,
    testing::Values(Setting{"Roomy", ModelRunner::kNoLimit, 1000, 64, 0},
                    Setting{"FewPages", 60, 1000, 64, 0}, Setting{"SmallSteps", 60, 1000, 3, 0},
                    Setting{"FewSequences", 200, 4, 64, 0},
                    Setting{"Snapshots", ModelRunner::kNoLimit, 1000, 64, 20},
                    Setting{"SnapshotsAndFewPages", 60, 1000, 16, 20},
                    Setting{"SnapshotsAndFewSequences", 200, 5, 16, 20},
                    Setting{"ChunksMatter", 60, 1000, 20, 0, true},
                    Setting{"ChunksMatterToSnapshots", 60, 1000, 20, 20, true}),
    [](const auto& setting) { return std::string(setting.param.name); });

TEST(Scheduler, AStepTakesAllTextsAndPartsOfPrompts) {
  FakeRunner runner;
  Scheduler scheduler(runner, {.step_tokens = 10});
  std::vector<Asked> all;
  for (int i = 0; i < 6; ++i) {
    all.push_back(ask(std::vector<int32_t>(8, i), {.max_tokens = 20}));
    scheduler.submit(all.back().request);
  }
  run_all(scheduler);
  EXPECT_EQ(runner.most_items, 6u);
  EXPECT_LT(runner.steps, 6 * 20);
}

TEST(Scheduler, CancelledRequestsHearNothingMoreAndHoldNothing) {
  FakeRunner runner(1000);
  Scheduler scheduler(runner, {});
  const Asked asked = ask({1, 2, 3}, {.max_tokens = 100, .choices = 3});
  scheduler.submit(asked.request);
  for (int i = 0; i < 5; ++i) scheduler.step();
  EXPECT_EQ(runner.sequences(), 4u);
  asked.request->cancel();
  asked.heard->muted = true;
  scheduler.step();
  EXPECT_EQ(runner.sequences(), 1u);
  EXPECT_EQ(runner.free_pages(), 1000);
  EXPECT_EQ(scheduler.counts().cancelled, 1);
}

std::string refusal(Scheduler& scheduler, std::vector<int32_t> prompt, RequestOptions options) {
  try {
    scheduler.submit(ask(std::move(prompt), std::move(options)).request);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.field() + " " + error.what();
  }
  return "";
}

TEST(Scheduler, WhatCanNeverBeServedIsRefusedAtTheDoorWithNumbers) {
  FakeRunner runner(24, 100);
  runner.chunks_pass = true;  // in 2 pages for a chunk of 8, whatever the prompt's length
  Scheduler scheduler(runner, {.chunk_tokens = kChunk});
  EXPECT_EQ(refusal(scheduler, {1}, {.max_tokens = 43}), "") << "just fits without compression";
  EXPECT_NE(refusal(scheduler, {1}, {.max_tokens = 44}).find("26 pages of the cache, which has 24"),
            std::string::npos);
  EXPECT_NE(refusal(scheduler, std::vector<int32_t>(101, 1), {}).find("context is 100"),
            std::string::npos);
  EXPECT_TRUE(refusal(scheduler, {}, {}).starts_with("prompt"));
  EXPECT_TRUE(refusal(scheduler, {1}, {.sampling = {.top_p = 2}}).starts_with("top_p"));
  EXPECT_TRUE(refusal(scheduler, {1}, {.max_tokens = 0, .choices = 2}).starts_with("n "));
  for (const int32_t token : {-1, static_cast<int32_t>(FakeRunner::kVocab)}) {
    EXPECT_NE(refusal(scheduler, {1, token}, {.rules = {.repetition_penalty = 2}}).find("0 to 39"),
              std::string::npos);
  }
  EXPECT_EQ(scheduler.counts().refused, 7);
}

// The first to come finishes in the time it takes alone, however many come after it.
TEST(Scheduler, TheOldestIsNeverHeldUp) {
  FakeRunner runner(24, 100);
  Scheduler scheduler(runner, {.expected_cr = 100.0});  // far too hopeful: lets everybody in
  const Asked first = ask({1, 2, 3, 4}, {.sampling = {.temperature = 0}, .max_tokens = 40});
  scheduler.submit(first.request);
  for (int i = 0; i < 10; ++i) {
    scheduler.submit(ask({5, 6, i}, {.sampling = {.seed = 1}, .max_tokens = 40}).request);
  }
  for (int i = 0; i < 40; ++i) scheduler.step();
  EXPECT_EQ(first.heard->choices[0].ends, 1);
  EXPECT_GT(scheduler.counts().preemptions, 0);
  run_all(scheduler);
  EXPECT_EQ(scheduler.counts().full_length, 11);
}

// 60 equal texts on a cache that holds four of them uncompressed.
SchedulerCounts crowd(SchedulerOptions options, size_t* most_at_once) {
  FakeRunner runner(4 * 2 * 25, 200);
  options.chunk_tokens = kChunk, options.growth_tokens = 16;
  Scheduler scheduler(runner, options);
  for (int i = 0; i < 60; ++i) {
    std::vector<int32_t> prompt(60, i % FakeRunner::kVocab);
    prompt.push_back(i / FakeRunner::kVocab);
    scheduler.submit(ask(prompt, {.max_tokens = 39}).request);
  }
  run_all(scheduler);
  *most_at_once = runner.most_items;
  return scheduler.counts();
}

// The fakes keep a slot for 2.4 tokens.
TEST(Scheduler, WhatTextsHaveShownLetsMoreOfThemIn) {
  size_t dense, learned;
  EXPECT_EQ(crowd({.cr_margin = 0.0}, &dense).preemptions, 0);
  const SchedulerCounts counts = crowd({}, &learned);
  EXPECT_GT(learned, dense);
  EXPECT_LE(counts.preemptions, 6) << "a margin and room to grow are there to make them rare";
  EXPECT_EQ(counts.full_length, 60);
}

// A beginning that others share is room they do not need, and the snapshot of it stays.
TEST(Scheduler, TextsThatBeginAlikeShareTheirRoomUnderPressureToo) {
  FakeRunner runner(60, 200);
  Scheduler scheduler(
      runner, {.chunk_tokens = kChunk, .cr_margin = 0.0, .growth_tokens = 4, .snapshots = 20});
  std::vector<Asked> all;
  for (int i = 0; i < 20; ++i) {
    std::vector<int32_t> prompt(64, 5);
    prompt.push_back(i);
    all.push_back(ask(std::move(prompt), {.max_tokens = 4}));
    scheduler.submit(all.back().request);
  }
  run_all(scheduler);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].heard->cached, i == 0 ? 0 : 64);
    expect_as_alone(all[i], {.prompts_end = true});
  }
  EXPECT_GE(runner.most_items, 4u) << "one at a time without sharing";
}

// One text has the least ratio for itself, a crowd goes to the most, and a request's own stays.
TEST(Scheduler, TheRatioRisesWithThePagesThatAreTaken) {
  FakeRunner runner(80, 200);
  std::map<SequenceId, std::vector<double>> held;
  Scheduler scheduler(runner,
                      {.chunk_tokens = kChunk,
                       .growth_tokens = 8,
                       .hold_ratio = [&](SequenceId id, double cr) { held[id].push_back(cr); },
                       .least_cr = 2.0,
                       .most_cr = 6.0});
  const Asked first = ask({1, 2, 3}, {.max_tokens = 10, .held_cr = 5.0});
  scheduler.submit(first.request);
  run_all(scheduler);
  EXPECT_EQ(first.heard->use.held_cr, 5.0);
  for (const auto& [id, ratios] : held) {
    EXPECT_EQ(std::ranges::count(ratios, 5.0), std::ssize(ratios)) << "its own, whatever the load";
  }
  held.clear();
  std::vector<Asked> crowd;
  for (int i = 0; i < 12; ++i) {
    crowd.push_back(ask(std::vector<int32_t>(30, i), {.max_tokens = 60}));
    scheduler.submit(crowd.back().request);
    if (i == 0) {
      scheduler.step();
      EXPECT_EQ(scheduler.load().held_cr, 2.0);
    }
  }
  double most = 0.0;
  while (scheduler.step()) most = std::max(most, scheduler.load().held_cr);
  EXPECT_EQ(most, 6.0);
  EXPECT_EQ(scheduler.load().held_cr, 2.0) << "the last text has the cache to itself";
  for (const auto& [id, ratios] : held) {
    for (const double cr : ratios) EXPECT_TRUE(cr >= 2.0 && cr <= 6.0) << cr;
  }
  for (const Asked& asked : crowd) expect_as_alone(asked);
}

TEST(Scheduler, AListenerThatHasEnoughEndsItsText) {
  FakeRunner runner;
  Scheduler scheduler(runner, {});
  const Asked asked = ask({1}, {.max_tokens = 30});
  asked.heard->stop_after = 4;
  scheduler.submit(asked.request);
  run_all(scheduler);
  EXPECT_EQ(asked.heard->choices[0].tokens.size(), 4u);
  EXPECT_EQ(asked.heard->choices[0].reason, FinishReason::kStop);
}

TEST(Scheduler, APromptAloneIsRated) {
  FakeRunner runner;
  Scheduler scheduler(runner, {.chunk_tokens = 8});
  const Asked asked = ask({1, 2, 3, 4, 5}, {.max_tokens = 0, .prompt_logprobs = 1});
  scheduler.submit(asked.request);
  run_all(scheduler);
  std::vector<float> expected;
  alone(*asked.request, 0, &expected, {});
  EXPECT_EQ(asked.heard->prompt, expected);
  EXPECT_EQ(asked.heard->choices[0].ends, 1);
  EXPECT_EQ(asked.heard->use.tokens, 5);
}

TEST(Scheduler, AFailedStepFailsThoseInItAndTheNextOnesGoOn) {
  FakeRunner runner(1000);
  Scheduler scheduler(runner, {});
  const Asked first = ask({1}, {.max_tokens = 30}), second = ask({2}, {.max_tokens = 3});
  scheduler.submit(first.request);
  scheduler.step();
  runner.fail_next = 1;
  scheduler.step();
  ASSERT_TRUE(first.heard->error.has_value());
  EXPECT_EQ(scheduler.counts().failed_steps_in_a_row, 1);
  EXPECT_EQ(runner.free_pages(), 1000);
  scheduler.submit(second.request);
  run_all(scheduler);
  expect_as_alone(second);
  EXPECT_EQ(scheduler.counts().failed_steps_in_a_row, 0);
}

TEST(Scheduler, ASnapshotOfAConversationServesItsNextTurn) {
  FakeRunner runner;
  Scheduler scheduler(runner, {.chunk_tokens = 4, .snapshots = 4});
  const Asked first = ask({1, 2, 3, 4, 5, 6}, {.sampling = {.temperature = 0}, .max_tokens = 6});
  scheduler.submit(first.request);
  run_all(scheduler);
  std::vector<int32_t> next = first.request->prompt;
  const auto& written = first.heard->choices[0].tokens;
  next.insert(next.end(), written.begin(), written.end());
  next.push_back(30);
  const Asked second = ask(next, {.max_tokens = 5});
  scheduler.submit(second.request);
  run_all(scheduler);
  EXPECT_EQ(second.heard->cached, 11) << "all but the last token written, which nobody took in";
}

// Behind the border of a chunk, too: at once, and when they come later.
TEST(Scheduler, PromptsThatBeginAlikeShareAllOfThat) {
  FakeRunner runner;
  runner.prompts_end = false;
  Scheduler scheduler(runner, {.chunk_tokens = 8, .snapshots = 8});
  const auto prompt = [](int32_t own) {
    std::vector<int32_t> tokens(21, 5);
    tokens.insert(tokens.end(), 3, own);
    return tokens;
  };
  const Asked first = ask(prompt(1), {.max_tokens = 2}), second = ask(prompt(2), {.max_tokens = 2});
  scheduler.submit(first.request);
  scheduler.submit(second.request);
  run_all(scheduler);
  EXPECT_EQ(second.heard->cached, 21);

  Scheduler later(runner, {.chunk_tokens = 8, .snapshots = 8});
  std::vector<int64_t> cached;
  for (int32_t own = 1; own <= 3; ++own) {
    const Asked asked = ask(prompt(own), {.max_tokens = 2});
    later.submit(asked.request);
    run_all(later);
    expect_as_alone(asked, {.prompts_end = false});
    cached.push_back(asked.heard->cached);
  }
  EXPECT_EQ(cached, (std::vector<int64_t>{0, 16, 21}));
}

}  // namespace
}  // namespace dmc::engine
