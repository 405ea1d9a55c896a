#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace dmc::engine {
namespace {

constexpr double kNewest = 0.2;   // weight of a text in the mean ratio
constexpr int64_t kTelling = 64;  // tokens; shorter texts are hardly compressed yet

}  // namespace

Scheduler::Scheduler(ModelRunner& runner, SchedulerOptions options)
    : runner_(runner),
      options_(std::move(options)),
      empty_(Sequence::add(runner)),
      prefixes_(options_.snapshots),
      expected_cr_(options_.expected_cr),
      held_cr_(options_.least_cr) {}

Scheduler::~Scheduler() = default;

// --- The door ---

void Scheduler::check(const Request& request) const {
  const RequestOptions& options = request.options;
  check_sampling_options(options.sampling);
  check_logit_rules(options.rules, runner_.vocab_size());
  const int64_t prompt = std::ssize(request.prompt), positions = runner_.max_positions();
  if (prompt == 0) throw invalid_argument("prompt", "is empty; give some text");
  if (prompt + std::min<int64_t>(options.max_tokens, 1) > positions) {
    throw invalid_argument("prompt", "has " + std::to_string(prompt) +
                                         " tokens, the model's context is " +
                                         std::to_string(positions) + "; shorten it");
  }
  const auto strange = std::ranges::find_if(
      request.prompt, [this](int32_t token) { return token < 0 || token >= runner_.vocab_size(); });
  if (strange != request.prompt.end()) {
    throw invalid_argument("prompt", "has the token " + std::to_string(*strange) +
                                         ", the model has 0 to " +
                                         std::to_string(runner_.vocab_size() - 1));
  }
  if (options.max_tokens == 0 && options.choices > 1) {
    throw invalid_argument("n", "expected 1 where max_tokens is 0");
  }
  const int64_t most = std::min(positions, prompt + options.max_tokens);
  const int64_t pages = runner_.most_pages(empty_.id(), most, options_.chunk_tokens);
  if (pages > runner_.total_pages()) {
    throw invalid_argument("max_tokens", "the request may need " + std::to_string(pages) +
                                             " pages of the cache, which has " +
                                             std::to_string(runner_.total_pages()) +
                                             "; ask for fewer tokens or a shorter prompt");
  }
}

void Scheduler::submit(std::shared_ptr<Request> request) {
  try {
    check(*request);
  } catch (const Error&) {
    ++counts_.refused;
    throw;
  }
  auto job = std::make_shared<Job>(std::move(request), arrivals_++);
  const Request& asked = *job->request;
  wait(std::make_unique<Text>(
      job, 0, RuledLogits(asked.options.rules, asked.prompt, asked.options.stop_ids)));
}

void Scheduler::wait(TextPtr text) {
  text->sequence.reset();
  text->taken = text->branch = 0;
  const auto behind = std::ranges::upper_bound(waiting_, text->place(), {},
                                               [](const TextPtr& other) { return other->place(); });
  waiting_.insert(behind, std::move(text));
}

void Scheduler::drop_cancelled() {
  const auto drop = [this](const TextPtr& text) {
    Job& job = *text->job;
    if (!job.request->cancelled()) return;
    if (!std::exchange(job.over, true)) ++counts_.cancelled;
    text->ended = true;
  };
  std::ranges::for_each(waiting_, drop);
  std::ranges::for_each(running_, drop);
  remove_ended();
}

void Scheduler::remove_ended() {
  const auto ended = [](const TextPtr& text) { return text->ended || text->job->over; };
  std::erase_if(waiting_, ended);
  std::erase_if(running_, ended);
}

// --- Admission ---

// Pages at most by pages taken.
double Scheduler::pages_ratio(const Text& text) const {
  const int64_t pages = runner_.pages_of(text.sequence->id());
  if (pages == 0) return 1.0;
  const int64_t most = runner_.most_pages(empty_.id(), text.taken, 1);
  return static_cast<double>(most) / static_cast<double>(pages);
}

// For the tokens that come: what all texts have shown, and more and more what this one has.
double Scheduler::counted_on(const Text& text) const {
  constexpr double kAsMuchAs = 256.0;  // tokens
  double seen = expected_cr_;
  if (text.taken >= kTelling) {
    const double own = static_cast<double>(text.taken);
    seen += own / (own + kAsMuchAs) * (pages_ratio(text) - seen);
  }
  return std::max(1.0, seen * options_.cr_margin);
}

// That a running text will probably take from now on, growing for a while.
int64_t Scheduler::pages_to_come(const Text& text) const {
  const int64_t growth = std::min(text.left(), options_.growth_tokens);
  const int64_t most =
      runner_.most_pages(text.sequence->id(), text.size() - text.taken + growth, 1);
  return static_cast<int64_t>(std::ceil(static_cast<double>(most) / counted_on(text)));
}

// The same of one that begins, which needs room for its first chunk before that is compressed.
int64_t Scheduler::pages_to_start(const Text& text, const Sequence* snapshot) const {
  const Sequence& from = snapshot ? *snapshot : empty_;
  const int64_t prompt = text.size() - from.length();
  const int64_t growth = std::min(text.left(), options_.growth_tokens);
  const int64_t most = runner_.most_pages(from.id(), prompt + growth, 1);
  return std::max(static_cast<int64_t>(std::ceil(static_cast<double>(most) / counted_on(text))),
                  runner_.pages_for(from.id(), std::min(prompt, options_.chunk_tokens)));
}

const Sequence* Scheduler::snapshot_for(const Text& text) const {
  return text.shares_prompt() ? prefixes_.find(text.request().prompt) : nullptr;
}

bool Scheduler::may_start(const Text& text, const Sequence* snapshot) const {
  if (running_.empty()) return true;
  if (std::ssize(running_) >= options_.max_sequences) return false;
  int64_t wanted = pages_to_start(text, snapshot);
  for (const TextPtr& other : running_) wanted += pages_to_come(*other);
  return wanted <= runner_.free_pages();
}

// Snapshots go for `text`, but not the one that it would go on from: that is room, too.
void Scheduler::make_room(const Text& text) {
  if (std::ssize(running_) >= options_.max_sequences) return;
  const Sequence* snapshot = snapshot_for(text);
  while (!may_start(text, snapshot) && prefixes_.drop_oldest(snapshot)) {
  }
}

// Whether a prompt that is being taken in begins like `text`, further than any snapshot: that of
// its chunks is worth waiting for.
bool Scheduler::shares_soon(const Text& text) const {
  if (!prefixes_.enabled() || !text.shares_prompt()) return false;
  const std::vector<int32_t>& prompt = text.request().prompt;
  const Sequence* snapshot = snapshot_for(text);
  const int64_t found = snapshot ? snapshot->length() : 0;
  return std::ranges::any_of(running_, [&](const TextPtr& other) {
    if (other->taken >= other->prompt_size() || other->request().options.held_cr > 0) return false;
    const int64_t most =
        std::min<int64_t>(tokens_alike(prompt, other->request().prompt), std::ssize(prompt) - 1);
    const int64_t border = other->branch <= most ? other->branch : 0;
    const int64_t shared = std::max(border, most / options_.chunk_tokens * options_.chunk_tokens);
    return shared > std::max(found, other->taken);
  });
}

// Another prompt begins with `alike` tokens of this one's: a snapshot where that ends spares the
// other what lies behind the last border, if that is enough to be worth a chunk. The nearest one
// counts.
void Scheduler::find_branch(Text& text, int64_t alike) const {
  const int64_t worth = std::max<int64_t>(1, options_.chunk_tokens / 8);
  const int64_t branch = std::min(alike, text.prompt_size() - 1);
  if (branch - text.taken < worth || branch % options_.chunk_tokens < worth) return;
  text.branch = text.branch > text.taken ? std::min(text.branch, branch) : branch;
}

// Of prompts that are being taken in, by those that wait for them.
void Scheduler::find_branches() {
  if (!prefixes_.enabled() || options_.chunks_matter) return;
  for (const TextPtr& text : running_) {
    if (text->taken >= text->prompt_size() || !text->shares_prompt()) continue;
    for (const TextPtr& other : waiting_) {
      if (!other->shares_prompt()) continue;
      find_branch(*text, tokens_alike(text->request().prompt, other->request().prompt));
    }
  }
}

void Scheduler::admit() {
  find_branches();
  short_of_pages_ = false;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (shares_soon(**at)) {
      ++at;
      continue;
    }
    make_room(**at);
    if (!may_start(**at, snapshot_for(**at))) {
      short_of_pages_ = std::ssize(running_) < options_.max_sequences;
      return;
    }
    TextPtr text = std::move(*at);
    waiting_.erase(at);
    const auto job = text->job;
    try {
      start(std::move(text));
    } catch (const Error& error) {  // the runner has no room for more sequences
      if (!prefixes_.drop_oldest()) {
        if (!running_.empty()) return;
        fail(*job, error);
        remove_ended();
      }
    }
    at = waiting_.begin();
  }
}

// The higher, the more of the pages are taken.
double Scheduler::ratio_now() const {
  constexpr double kEase = 0.5, kFull = 0.9;  // parts of all pages
  const double least = options_.least_cr, most = std::max(least, options_.most_cr);
  if (most == least || runner_.total_pages() == ModelRunner::kNoLimit) return least;
  if (short_of_pages_) return most;
  double taken = 0.0;
  for (const TextPtr& text : running_) {
    taken += static_cast<double>(runner_.pages_of(text->sequence->id()));
  }
  const double part =
      (taken / static_cast<double>(runner_.total_pages()) - kEase) / (kFull - kEase);
  return least + std::clamp(part, 0.0, 1.0) * (most - least);
}

double Scheduler::ratio_of(const Text& text) const {
  const double asked = text.request().options.held_cr;
  return asked > 0.0 ? asked : held_cr_;
}

void Scheduler::hold_ratios() {
  if (!options_.hold_ratio) return;
  held_cr_ = ratio_now();
  for (const TextPtr& text : running_) options_.hold_ratio(text->sequence->id(), ratio_of(*text));
}

// A session that is longer than what is in memory becomes a snapshot there.
void Scheduler::resume_session(const Text& text) {
  if (options_.sessions == nullptr || !text.shares_prompt()) return;
  const std::span prompt(text.request().prompt);
  const Sequence* snapshot = snapshot_for(text);
  if (options_.sessions->find(prompt) <= (snapshot ? snapshot->length() : 0)) return;
  std::optional<MappedSession> found = options_.sessions->load(prompt);
  if (!found) return;
  SessionView& session = found->session;
  try {
    Sequence sequence = Sequence::restore(runner_, session.state);
    found->file->require_whole();
    if (sequence.length() != std::ssize(session.tokens)) throw data_error("lengths differ");
    prefixes_.insert(std::move(session.tokens), std::move(sequence));
  } catch (const Error& error) {  // too few pages: it was only to save time
    if (error.code() == ErrorCode::kData) options_.sessions->discard(found->path, error);
  }
}

void Scheduler::start(TextPtr text) {
  resume_session(*text);
  const Sequence* snapshot = snapshot_for(*text);
  if (snapshot != nullptr) prefixes_.used(snapshot);
  try {
    text->sequence = snapshot ? snapshot->fork() : Sequence::add(runner_);
  } catch (const Error&) {
    wait(std::move(text));
    throw;
  }
  text->taken = text->sequence->length();
  if (prefixes_.enabled() && !options_.chunks_matter && text->shares_prompt()) {
    find_branch(*text, prefixes_.alike(text->request().prompt));
  }
  counts_.cached_tokens += text->taken;
  Job& job = *text->job;
  if (!std::exchange(job.admitted, true)) job.request->listener->admitted(text->taken);
  run_text(std::move(text));
}

void Scheduler::run_text(TextPtr text) {
  const auto behind = std::ranges::upper_bound(running_, text->place(), {},
                                               [](const TextPtr& other) { return other->place(); });
  running_.insert(behind, std::move(text));
}

// --- The end of texts ---

CacheUse Scheduler::cache_use(const Text& text) const {
  const SequenceId sequence = text.sequence->id();
  CacheUse use{text.taken, runner_.compression_ratio(sequence), {}, ratio_of(text)};
  if (options_.slots_of) use.slots = options_.slots_of(sequence);
  return use;
}

void Scheduler::end(Text& text, FinishReason reason, std::optional<int32_t> stop_token) {
  Ending ending{reason, stop_token, {}};
  if (text.sequence) {
    ending.cache = cache_use(text);
    learn_ratio(text);
    counts_.cache_tokens += static_cast<double>(text.taken);
    counts_.cache_slots += static_cast<double>(text.taken) / ending.cache.compression_ratio;
  }
  ++(reason == FinishReason::kStop ? counts_.stopped : counts_.full_length);
  text.ended = true;
  text.job->request->listener->ended(text.choice, ending);
  if (!text.sequence || options_.chunks_matter || text.taken < options_.chunk_tokens) return;
  if (text.request().options.held_cr > 0.0) return;
  std::vector<int32_t> tokens = text.request().prompt;  // the next turn of a chat goes on from here
  tokens.insert(tokens.end(), text.written.begin(), text.written.end());
  tokens.resize(static_cast<size_t>(text.taken));
  save_session(tokens, *text.sequence);
  prefixes_.insert(std::move(tokens), std::move(*text.sequence));
  text.sequence.reset();
}

void Scheduler::fail(Job& job, const Error& error) {
  if (std::exchange(job.over, true)) return;
  ++counts_.failed;
  job.request->listener->failed(error);
}

void Scheduler::fail_all(const Error& error) {
  for (const TextPtr& text : waiting_) fail(*text->job, error);
  for (const TextPtr& text : running_) fail(*text->job, error);
  remove_ended();
  while (prefixes_.drop_oldest()) {
  }
}

void Scheduler::snapshot(const Text& text) {
  const bool at_border = text.taken % options_.chunk_tokens == 0 || text.taken == text.branch;
  if (!prefixes_.enabled() || !at_border) return;
  if (text.request().options.held_cr > 0.0) return;
  const auto tokens = std::span(text.request().prompt).first(static_cast<size_t>(text.taken));
  if (prefixes_.contains(tokens)) return;
  // Where no text's end can be gone on from, the last chunk's can.
  const bool last = text.taken + options_.chunk_tokens > text.prompt_size();
  if (options_.chunks_matter && last) save_session(tokens, *text.sequence);
  try {
    prefixes_.insert({tokens.begin(), tokens.end()}, text.sequence->fork());
  } catch (const Error&) {  // no room for more sequences, and it was only to save time
  }
}

void Scheduler::save_session(std::span<const int32_t> tokens, const Sequence& sequence) {
  if (options_.sessions == nullptr || options_.sessions->contains(tokens)) return;
  std::optional<std::string> state = runner_.save(sequence.id());
  if (state) options_.sessions->save({{tokens.begin(), tokens.end()}, std::move(*state)});
}

void Scheduler::learn_ratio(const Text& text) {
  if (text.taken < kTelling) return;
  expected_cr_ += kNewest * (pages_ratio(text) - expected_cr_);
}

SchedulerLoad Scheduler::load() const {
  SchedulerLoad load{std::ssize(running_), std::ssize(waiting_), runner_.free_pages(),
                     runner_.total_pages()};
  for (const TextPtr& text : running_) {
    load.tokens += text->taken;
    load.running_pages += runner_.pages_of(text->sequence->id());
    if (text->taken == 0) continue;
    load.slots +=
        static_cast<double>(text->taken) / runner_.compression_ratio(text->sequence->id());
  }
  load.expected_cr = expected_cr_;
  load.held_cr = held_cr_;
  load.snapshots = prefixes_.size();
  return load;
}

}  // namespace dmc::engine
