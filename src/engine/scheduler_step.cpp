// The steps of the scheduler: what goes into one, and what comes of it.
#include <algorithm>
#include <numeric>
#include <utility>

#include "base/parallel.h"
#include "engine/scheduler.h"

namespace dmc::engine {

bool Scheduler::step() {
  drop_cancelled();
  admit();
  hold_ratios();
  std::vector<Item> items = plan();
  fit(&items);
  remove_ended();
  if (items.empty()) return !running_.empty() || !waiting_.empty();
  run(std::move(items));
  remove_ended();
  admit();  // so that load() tells of those that the next step has
  return true;
}

// A prompt's chunks have their borders at the same places always, but for one where others branch
// off.
int64_t Scheduler::next_chunk(const Text& text) const {
  if (text.taken >= text.prompt_size()) {
    return options_.chunks_matter ? 1 : std::min(options_.chunk_tokens, text.size() - text.taken);
  }
  int64_t border = (text.taken / options_.chunk_tokens + 1) * options_.chunk_tokens;
  if (text.branch > text.taken) border = std::min(border, text.branch);
  return std::min(border, text.prompt_size()) - text.taken;
}

StepPart Scheduler::item(Text& text, int64_t tokens) const {
  const bool in_prompt = text.taken < text.prompt_size();
  const auto from = in_prompt
                        ? std::span(text.request().prompt).subspan(static_cast<size_t>(text.taken))
                        : std::span<const int32_t>(text.written)
                              .subspan(static_cast<size_t>(text.taken - text.prompt_size()));
  Item item{&text, from.first(static_cast<size_t>(tokens)), Wanted::kNone};
  if (in_prompt && text.rates_prompt()) {
    item.logits = Wanted::kAll;
  } else if (item.completes()) {
    item.logits = Wanted::kLast;
  }
  return item;
}

// One token of every text that is being written, and chunks of the oldest prompts: at least one.
std::vector<StepPart> Scheduler::plan() {
  std::vector<Item> items;
  int64_t left = options_.step_tokens;
  bool begun = false;
  for (const TextPtr& text : running_) {
    const int64_t chunk = next_chunk(*text);
    if (chunk > 1) {
      if (begun && chunk > left) left = 0;  // and no younger one overtakes it
      if (begun && left == 0) continue;
      begun = true;
      left -= std::min(left, chunk);
    }
    items.push_back(item(*text, chunk));
  }
  return items;
}

// Makes the items few enough for the pages that are free.
void Scheduler::fit(std::vector<Item>* items) {
  const auto pages = [&] {
    return std::accumulate(
        items->begin(), items->end(), int64_t{0}, [&](int64_t sum, const Item& item) {
          return sum + runner_.pages_for(item.text->sequence->id(), std::ssize(item.tokens));
        });
  };
  // What the next to come goes on from stays as long as prompts can wait instead.
  const Sequence* kept = waiting_.empty() ? nullptr : snapshot_for(*waiting_.front());
  while (!items->empty() && pages() > runner_.free_pages()) {
    if (prefixes_.drop_oldest(kept) || need_less(items)) continue;
    fail(*items->front().text->job,
         exhausted("the cache's pages ran out with no other request on it"));
    items->clear();
  }
}

// First prompts wait, the youngest first; then the last snapshot goes, and then the youngest text
// gives back what it has. The oldest goes on in any case.
bool Scheduler::need_less(std::vector<Item>* items) {
  const Text* oldest = running_.front().get();
  const auto prompt = std::find_if(items->rbegin(), items->rend(), [&](const Item& item) {
    return !item.text->decodes() && item.text != oldest;
  });
  if (prompt != items->rend()) {
    items->erase(std::next(prompt).base());
    return true;
  }
  if (prefixes_.drop_oldest()) return true;
  if (running_.size() == 1) return false;
  preempt(items);
  return true;
}

void Scheduler::preempt(std::vector<Item>* items) {
  TextPtr youngest = std::move(running_.back());
  running_.pop_back();
  std::erase_if(*items, [&](const Item& item) { return item.text == youngest.get(); });
  ++counts_.preemptions;
  wait(std::move(youngest));
}

void Scheduler::run(std::vector<Item> items) {
  StepResult result;
  for (;;) {
    std::vector<StepItem> step;
    for (const Item& item : items) {
      step.push_back({item.text->sequence->id(), item.tokens, item.ends_prompt(), item.logits});
    }
    try {
      result = runner_.step(step);
      break;
    } catch (const Error& error) {
      step_failed(&items, error);
    } catch (const std::exception&) {
      step_failed(&items, internal_error("the model failed in this step"));
    }
    if (items.empty()) return;
  }
  counts_.failed_steps_in_a_row = 0;
  ++counts_.steps;
  counts_.items += std::ssize(items);
  take_over(items, result.logits);
}

// Too few pages is a matter of one text fewer; after anything else nobody knows what is whole.
void Scheduler::step_failed(std::vector<Item>* items, const Error& error) {
  if (error.code() == ErrorCode::kExhausted && running_.size() > 1) return preempt(items);
  ++counts_.failed_steps_in_a_row;
  for (const Item& item : *items) fail(*item.text->job, error);
  items->clear();
}

void Scheduler::take_over(std::vector<Item>& items, std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(runner_.vocab_size());
  for (Item& item : items) {
    const size_t rows = item.logits == Wanted::kNone   ? 0
                        : item.logits == Wanted::kLast ? 1
                                                       : item.tokens.size();
    item.rows = logits.first(rows * vocab);
    logits = logits.subspan(rows * vocab);
    if (item.logits == Wanted::kAll) rate_prompt(item);
  }
  std::vector<Drawing> drawn = drawings(items);
  parallel_for(0, std::ssize(drawn), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) draw(drawn[static_cast<size_t>(i)]);
  });
  for (Drawing& drawing : drawn) deliver(drawing);
}

// Draws a token, on any thread.
void Scheduler::draw(Drawing& drawing) {
  Text& text = *drawing.text;
  const RequestOptions& options = text.request().options;
  WrittenToken& token = drawing.token;
  SamplingOptions sampling = options.sampling;
  sampling.seed = seed_of_choice(sampling.seed, text.choice);
  try {
    token.token = sample(text.rules.apply(drawing.row), sampling, text.size());
    if (options.logprobs) {
      token.logprobs = logprobs_of(drawing.row, token.token, *options.logprobs);
    }
  } catch (const Error& error) {
    drawing.error = error;
  }
}

// Row i of a chunk says how likely the prompt's token behind token i was.
void Scheduler::rate_prompt(const Item& item) const {
  Job& job = *item.text->job;
  const Request& request = *job.request;
  const auto vocab = static_cast<size_t>(runner_.vocab_size());
  std::vector<Logprobs> rated;
  const int64_t first = item.text->taken;
  for (int64_t i = std::max<int64_t>(0, job.rated - first); i < std::ssize(item.tokens); ++i) {
    const auto next = static_cast<size_t>(first + i + 1);
    if (next >= request.prompt.size()) continue;
    const auto row = item.rows.subspan(static_cast<size_t>(i) * vocab, vocab);
    rated.push_back(logprobs_of(row, request.prompt[next], *request.options.prompt_logprobs));
  }
  job.rated = std::max(job.rated, first + std::ssize(item.tokens));
  if (!rated.empty() && !job.over) request.listener->prompt_rated(rated);
}

// Moves the texts on, and says which of them get a token.
std::vector<Drawing> Scheduler::drawings(std::vector<Item>& items) {
  const auto vocab = static_cast<size_t>(runner_.vocab_size());
  std::vector<Drawing> drawn;
  for (Item& item : items) {
    Text& text = *item.text;
    const bool in_prompt = text.taken < text.prompt_size(), completes = item.completes();
    text.taken += std::ssize(item.tokens);
    if (in_prompt) {
      counts_.prompt_tokens += std::ssize(item.tokens);
      snapshot(text);
    }
    if (!completes) continue;
    if (text.request().options.max_tokens == 0) {
      end(text, FinishReason::kLength, {});
      continue;
    }
    const auto row = item.rows.last(vocab);
    drawn.push_back({&text, row});
    if (in_prompt && !std::exchange(text.job->branched, true)) branch(text, row, &drawn);
  }
  return drawn;
}

// The other choices go on from the same prompt. Those there is no room for wait; they take it in
// again.
void Scheduler::branch(Text& first, std::span<const float> row, std::vector<Drawing>* drawn) {
  learn_ratio(first);
  const RequestOptions& options = first.request().options;
  for (int64_t choice = 1; choice < options.choices; ++choice) {
    auto text = std::make_unique<Text>(
        first.job, choice, RuledLogits(options.rules, first.request().prompt, options.stop_ids));
    drawn->push_back({text.get(), row});
    try {
      if (std::ssize(running_) >= options_.max_sequences) throw exhausted("all sequences are used");
      text->sequence = first.sequence->fork();
      text->taken = first.taken;
      run_text(std::move(text));
    } catch (const Error&) {
      wait(std::move(text));
    }
  }
}

void Scheduler::deliver(Drawing& drawing) {
  Text& text = *drawing.text;
  Job& job = *text.job;
  if (job.over) return;
  if (drawing.error) return fail(job, *drawing.error);
  WrittenToken& token = drawing.token;
  const RequestOptions& options = text.request().options;
  text.written.push_back(token.token);
  text.rules.written(token.token);
  ++counts_.written_tokens;
  token.stop = std::ranges::find(options.stop_ids, token.token) != options.stop_ids.end();
  const bool full = text.left() == 0 || text.size() > runner_.max_positions();
  token.last = token.stop || full;
  if (options.report_cache && text.sequence) token.cache = cache_use(text);
  bool enough = false;
  try {
    enough = job.request->listener->token(text.choice, token);
  } catch (const std::exception&) {  // its own trouble, nobody else's
    return fail(job, internal_error("the answer could not be written"));
  }
  if (token.stop) return end(text, FinishReason::kStop, token.token);
  if (enough) return end(text, FinishReason::kStop, {});
  if (full) end(text, FinishReason::kLength, {});
}

}  // namespace dmc::engine
