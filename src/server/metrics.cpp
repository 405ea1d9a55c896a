#include "server/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "server/json_text.h"

namespace dmc::server {
namespace {

constexpr double kSeconds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                               0.5,   1.0,    2.5,   5.0,  10.0,  30.0, 60.0};
constexpr double kTokens[] = {1, 8, 32, 128, 512, 2048, 8192, 32768, 131072};

struct Family {
  const char *name, *help;
  std::span<const double> bounds;
};

constexpr Family kHistograms[] = {
    {"dmc_time_to_first_token_seconds", "From a request's arrival to its first token", kSeconds},
    {"dmc_inter_token_latency_seconds", "Between two tokens of a text", kSeconds},
    {"dmc_request_duration_seconds", "From a request's arrival to its end", kSeconds},
    {"dmc_queue_time_seconds", "From a request's arrival to its first step", kSeconds},
    {"dmc_request_prompt_tokens", "Tokens of a prompt", kTokens},
    {"dmc_request_generation_tokens", "Tokens of a text that was written", kTokens},
};
static_assert(std::size(kHistograms) == static_cast<size_t>(Timing::kCount));

class Page {
 public:
  void family(const std::string& name, const char* type, const std::string& help) {
    text_ += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  }
  void sample(const std::string& name, double value) {
    text_ += name + " " + json_number(value) + "\n";
  }
  void gauge(const std::string& name, const std::string& help, double value) {
    family(name, "gauge", help);
    sample(name, value);
  }
  void counter(const std::string& name, const std::string& help, int64_t value) {
    family(name, "counter", help);
    sample(name, static_cast<double>(value));
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string label(const std::string& name, const std::string& key, const std::string& value) {
  return name + "{" + key + "=" + json_string(value) + "}";
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

void append_process(Page* page) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  page->family("process_cpu_seconds_total", "counter", "User and system time");
  page->sample("process_cpu_seconds_total", seconds(usage.ru_utime) + seconds(usage.ru_stime));
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  page->gauge("process_resident_memory_bytes", "Resident memory",
              static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)));
}

void append_requests(const engine::SchedulerCounts& counts, Page* page) {
  const std::string name = "dmc_texts_total";
  page->family(name, "counter", "Texts that have ended, and requests that did not");
  const std::pair<const char*, int64_t> outcomes[] = {{"stop", counts.stopped},
                                                      {"length", counts.full_length},
                                                      {"cancelled", counts.cancelled},
                                                      {"error", counts.failed},
                                                      {"rejected", counts.refused}};
  for (const auto& [outcome, count] : outcomes) {
    page->sample(label(name, "outcome", outcome), static_cast<double>(count));
  }
  page->counter("dmc_prompt_tokens_total", "Tokens of prompts taken in", counts.prompt_tokens);
  page->counter("dmc_prompt_tokens_cached_total", "Tokens of prompts that were in the cache",
                counts.cached_tokens);
  page->counter("dmc_generation_tokens_total", "Tokens written", counts.written_tokens);
  page->counter("dmc_preemptions_total", "Texts that gave their pages back, to be taken in again",
                counts.preemptions);
  page->counter("dmc_steps_total", "Passes over the model", counts.steps);
  page->counter("dmc_step_items_total", "Texts in all of these", counts.items);
}

void append_cache(const engine::EngineLoop::State& state, const Metrics::About& about, Page* page) {
  const engine::SchedulerLoad& load = state.load;
  const auto streams = static_cast<double>(about.streams);
  page->gauge("dmc_kv_tokens_seen", "Tokens that running texts have taken in",
              static_cast<double>(load.tokens));
  page->gauge("dmc_kv_slots_kept", "Slots that they keep, by layer and head on average",
              load.slots);
  page->gauge("dmc_kv_bytes_used", "Bytes of these slots", load.slots * streams * about.slot_bytes);
  page->gauge("dmc_kv_bytes_dense", "Bytes if nothing was compressed",
              static_cast<double>(load.tokens) * streams * about.slot_bytes);
  if (load.pages != engine::ModelRunner::kNoLimit) {
    page->gauge("dmc_kv_pages", "Pages of the cache", static_cast<double>(load.pages));
    page->gauge("dmc_kv_pages_free", "Pages that nobody holds",
                static_cast<double>(load.free_pages));
    page->gauge("dmc_kv_pages_running", "Pages of texts that run, shared ones for each of them",
                static_cast<double>(load.running_pages));
    page->gauge("dmc_kv_bytes_capacity", "Bytes of all pages",
                static_cast<double>(load.pages) * about.page_bytes);
  }
  page->gauge("dmc_kv_snapshots", "Beginnings of prompts that are kept",
              static_cast<double>(load.snapshots));
  const double slots = state.counts.cache_slots;
  page->gauge("dmc_kv_compression_ratio", "Tokens by slots of all texts that have ended",
              slots > 0.0 ? state.counts.cache_tokens / slots : 1.0);
  if (load.held_cr > 0.0) {
    page->gauge("dmc_kv_compression_ratio_held", "That new tokens are compressed for now",
                load.held_cr);
  }
  page->gauge("dmc_kv_compression_ratio_expected",
              "Pages at most by pages taken, which admission counts on but for a margin",
              load.expected_cr);
}

void append_sessions(const engine::SessionCounts& sessions, Page* page) {
  page->gauge("dmc_sessions", "Conversations that are saved on disk",
              static_cast<double>(sessions.files));
  page->gauge("dmc_session_bytes", "Bytes of their files", static_cast<double>(sessions.bytes));
  page->counter("dmc_sessions_saved_total", "Sessions written", sessions.saved);
  page->counter("dmc_sessions_resumed_total", "Sessions that texts went on from", sessions.resumed);
  page->counter("dmc_sessions_damaged_total", "Files that were refused and removed",
                sessions.damaged);
  page->counter("dmc_sessions_dropped_total", "Sessions that the disk had no room or time for",
                sessions.dropped);
}

}  // namespace

Metrics::Metrics() {
  for (size_t i = 0; i < histograms_.size(); ++i) {
    histograms_[i].counts.assign(kHistograms[i].bounds.size() + 1, 0);
  }
}

void Metrics::observe(Timing what, double value) {
  const auto index = static_cast<size_t>(what);
  const auto bounds = kHistograms[index].bounds;
  const auto bin = std::ranges::lower_bound(bounds, value) - bounds.begin();
  const std::lock_guard lock(mutex_);
  ++histograms_[index].counts[static_cast<size_t>(bin)];
  histograms_[index].sum += value;
}

void Metrics::count_answer(int status) {
  const std::lock_guard lock(mutex_);
  ++answers_[status];
}

void Metrics::count_ratio(std::span<const double> by_layer) {
  constexpr double kNewest = 0.2;
  const std::lock_guard lock(mutex_);
  if (layer_ratios_.size() != by_layer.size())
    layer_ratios_.assign(by_layer.begin(), by_layer.end());
  for (size_t i = 0; i < by_layer.size(); ++i) {
    layer_ratios_[i] += kNewest * (by_layer[i] - layer_ratios_[i]);
  }
}

std::string Metrics::render(const engine::EngineLoop::State& state, const About& about) const {
  Page page;
  page.family("dmc_build_info", "gauge", "What runs here");
  page.sample("dmc_build_info{version=" + json_string(about.version) + ",model=" +
                  json_string(about.model) + ",policy=" + json_string(about.policy) + "}",
              1);
  page.gauge("dmc_requests_running", "Texts that are being written or read",
             static_cast<double>(state.load.running));
  page.gauge("dmc_requests_waiting", "Texts that wait for room",
             static_cast<double>(state.load.waiting));
  page.gauge("dmc_connections", "Open connections", static_cast<double>(about.connections));
  append_requests(state.counts, &page);
  append_cache(state, about, &page);
  if (state.sessions) append_sessions(*state.sessions, &page);
  const std::lock_guard lock(mutex_);
  page.family("dmc_kv_compression_ratio_layer", "gauge",
              "Tokens by slots of recent texts, by layer");
  for (size_t i = 0; i < layer_ratios_.size(); ++i) {
    page.sample(label("dmc_kv_compression_ratio_layer", "layer", std::to_string(i)),
                layer_ratios_[i]);
  }
  page.family("dmc_http_answers_total", "counter", "Answers by status");
  for (const auto& [status, count] : answers_) {
    page.sample(label("dmc_http_answers_total", "status", std::to_string(status)),
                static_cast<double>(count));
  }
  for (size_t i = 0; i < histograms_.size(); ++i) {
    const Family& family = kHistograms[i];
    const std::string name = family.name;
    page.family(name, "histogram", family.help);
    int64_t sum = 0;
    for (size_t bin = 0; bin < histograms_[i].counts.size(); ++bin) {
      sum += histograms_[i].counts[bin];
      const bool last = bin == family.bounds.size();
      page.sample(label(name + "_bucket", "le", last ? "+Inf" : json_number(family.bounds[bin])),
                  static_cast<double>(sum));
    }
    page.sample(name + "_sum", histograms_[i].sum);
    page.sample(name + "_count", static_cast<double>(sum));
  }
  append_process(&page);
  return page.take();
}

}  // namespace dmc::server
