// dmc serve: an OpenAI-compatible server on a compressed cache.
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/human.h"
#include "base/stopwatch.h"
#include "base/table.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "engine/engine_loop.h"
#include "engine/session_store.h"
#include "kernels/slot_page.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/model_folder.h"

namespace dmc::cli {
namespace {

constexpr int kPageSlots = 16;  // cache::CacheConfig's and the device's

struct ServeCommand {
  ModelOptions model;
  server::HttpOptions http;
  engine::EngineLoop::Options engine;
  int64_t context = 0;
  uint64_t memory = 0;  // bytes; 0: half of what is free
  int64_t snapshots = 32;
  std::filesystem::path session_dir;
  uint64_t session_bytes = uint64_t{4} << 30;
  std::filesystem::path key_file;
  std::vector<std::string> hosts;
  std::string name;
  std::string elastic;  // "MIN..MAX"
  bool insecure = false, no_page = false;
};

std::vector<std::string> read_keys(const std::filesystem::path& file) {
  std::vector<std::string> keys;
  if (const char* key = std::getenv("DMC_API_KEY")) keys.emplace_back(key);
  if (file.empty()) return keys;
  std::istringstream lines(read_text_file(file, size_t{1} << 20));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (!line.empty() && line[0] != '#') keys.push_back(line);
  }
  if (keys.empty()) throw invalid_argument("api_key_file", file.string() + " has no keys");
  return keys;
}

// What programs can still take, files that are only cached not counted.
uint64_t free_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  for (uint64_t kib = 0; file >> key >> kib; file.ignore(64, '\n')) {
    if (key == "MemAvailable:") return kib << 10;
  }
  return uint64_t{4} << 30;
}

kernels::PageFormat page_format(const model::ModelConfig& config, const ServeCommand& command) {
  return {kPageSlots, static_cast<int>(config.head_dim), precision(command.model.kv),
          command.model.compression.mass_term};
}

int64_t pages_in_memory(const ServeCommand& command, const model::ModelConfig& config) {
  const uint64_t bytes = command.memory > 0 ? command.memory : free_memory() / 2;
  const auto pages = static_cast<int64_t>(bytes) / page_format(config, command).bytes();
  return std::clamp<int64_t>(pages, 1, int64_t{1} << 30);
}

server::ServedModel served_model(const ServeCommand& command, const runtime::Runner& runner) {
  const model::ModelConfig& config = runner.model().config;
  server::ServedModel model =
      server::model_in(command.model.dir, command.name, runner.max_positions(), runner.vocab_size(),
                       config.eos_token_ids);
  model.policy = runner.policy().name;
  model.slot_type = command.model.kv;
  model.holds_ratio = static_cast<bool>(command.engine.scheduler.hold_ratio);
  model.layers = config.num_layers;
  model.kv_heads = config.num_kv_heads;
  model.slot_bytes = static_cast<double>(page_format(config, command).bytes()) / kPageSlots;
  return model;
}

// With a budget the runner's bound is what texts take; a prompt's end compresses what lies there.
bool bound_is_taken(const policy::Policy& policy) { return policy.least_budget > 0; }

double expected_ratio(const ServeCommand& command, const runtime::Runner& runner) {
  const runtime::PolicyOptions& compression = command.model.compression;
  if (compression.cr > 1.0) return compression.cr;
  if (compression.forced_cr > 1.0) return compression.forced_cr;
  const auto& dmc = runner.model().config.dmc;
  return runner.policy().needs_dmc_config && dmc ? std::max(1.0, dmc->target_cr) : 1.0;
}

// --elastic: the ratio is held at the first while there is room, and rises to the second.
void read_elastic(ServeCommand* command) {
  if (command->elastic.empty()) return;
  engine::SchedulerOptions& scheduler = command->engine.scheduler;
  char end = 0;
  const int found = std::sscanf(command->elastic.c_str(), "%lf..%lf%c", &scheduler.least_cr,
                                &scheduler.most_cr, &end);
  if (found != 2 || !(scheduler.least_cr >= 1.0 && scheduler.least_cr < scheduler.most_cr &&
                      scheduler.most_cr <= 64.0)) {
    throw invalid_argument(
        "elastic", "\"" + command->elastic + "\" is no range of ratios from 1 to 64, such as 2..8");
  }
  if (command->model.compression.cr > 0.0) {
    throw invalid_argument("elastic", "and --cr both say how far to compress; give one of them");
  }
  command->model.compression.cr = scheduler.least_cr;
}

// Lets the scheduler move the ratio, where one is held and can be moved.
void hold_ratios(ServeCommand* command, runtime::Runner& runner) {
  engine::SchedulerOptions& scheduler = command->engine.scheduler;
  const bool moves = runner.can_hold_ratios() && runner.policy().needs_dmc_config &&
                     command->model.compression.cr > 0.0;
  if (!moves && !command->elastic.empty()) {
    throw invalid_argument("elastic",
                           "needs a retrofitted model, whose decisions can be moved while it runs "
                           "(on the CPU); policy " +
                               std::string(runner.policy().name) + " has none of these");
  }
  if (!moves) return;
  scheduler.least_cr = command->model.compression.cr;
  scheduler.hold_ratio = [&runner](engine::SequenceId sequence, double cr) {
    runner.hold_ratio(sequence, cr);
  };
}

// --session-dir; null without it.
std::unique_ptr<engine::SessionStore> open_sessions(const ServeCommand& command,
                                                    runtime::Runner& runner) {
  if (command.session_dir.empty()) return nullptr;
  if (command.snapshots == 0) {
    throw invalid_argument("session_dir", "needs --snapshots above 0, which sessions become");
  }
  auto sessions = std::make_unique<engine::SessionStore>(
      engine::SessionOptions{command.session_dir, command.session_bytes,
                             engine::fingerprint(runner), runner.max_positions()});
  const engine::SessionCounts counts = sessions->counts();
  std::cerr << command.session_dir.string() << " has " << counts.files << " sessions, "
            << human_bytes(static_cast<double>(counts.bytes)) << "\n";
  return sessions;
}

// As many as their logits may take memory, should a prompt be rated; whole pages where there may be
// so many.
int64_t chunk_tokens(int64_t step_tokens, int64_t vocab_size) {
  constexpr int64_t kRatedBytes = 128 << 20, kMost = 256;
  const int64_t tokens = std::min({kMost, step_tokens, kRatedBytes / (4 * vocab_size)});
  return std::max<int64_t>(1, tokens > kPageSlots ? tokens / kPageSlots * kPageSlots : tokens);
}

// How many sequences of which length fit the cache, dense and as this model compresses.
void print_plan(const ServeCommand& command, engine::ModelRunner& runner, double ratio) {
  const int64_t pages = runner.total_pages();
  if (pages == engine::ModelRunner::kNoLimit) return;
  const engine::Sequence empty = engine::Sequence::add(runner);
  Table table({{"tokens"}, {"sequences, dense"}, {"at CR " + fixed(ratio, 1)}});
  for (int64_t length = 1024;; length *= 2) {
    length = std::min(length, runner.max_positions());
    const int64_t each = std::max<int64_t>(1, runner.most_pages(empty.id(), length, 1));
    const auto fits = [&](double cr) {
      return human_count(std::floor(static_cast<double>(pages) * cr / static_cast<double>(each)));
    };
    table.add_row({std::to_string(length), fits(1.0), fits(ratio)});
    if (length >= runner.max_positions()) break;
  }
  table.print(std::cerr);
  std::cerr << "(at most " << command.engine.scheduler.max_sequences << " at once)\n";
}

void check(const ServeCommand& command, const std::vector<std::string>& keys) {
  if (server::is_loopback(command.http.address) || command.insecure || !keys.empty()) return;
  throw invalid_argument(
      "host", command.http.address +
                  " lets others in; give them a key (--api-key-file, or DMC_API_KEY in the "
                  "environment), or --insecure");
}

// A connection is a file, of which the system may allow fewer than we want.
void allow_connections(size_t connections) {
  constexpr rlim_t kOthers = 64;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = connections + kOthers;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == wanted) return;
  throw invalid_argument("connections", std::to_string(connections) +
                                            " is more than this system's limit of open files has "
                                            "room for (ulimit -n); raise it or allow fewer");
}

int run(ServeCommand command) {
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads the log or an answer may go
  allow_connections(command.http.connections);
  const std::vector<std::string> keys = read_keys(command.key_file);
  check(command, keys);
  read_elastic(&command);
  const Stopwatch watch;
  std::cerr << "loading " << command.model.dir.string() << " ..." << std::flush;
  const runtime::PlacedModel placed = place_model(command.model);
  const model::ModelConfig& config = placed.model().config;
  runtime::RunnerOptions setup = runner_options(command.model);
  setup.max_positions = command.context;
  engine::SchedulerOptions& scheduler = command.engine.scheduler;
  if (placed.device() == nullptr || command.memory > 0) {
    setup.max_pages = pages_in_memory(command, config);
  }
  // One more for the empty sequence that the scheduler measures with, and those that are kept.
  const auto room = static_cast<int>(scheduler.max_sequences + 1 + command.snapshots);
  const std::unique_ptr<runtime::Runner> runner = placed.make_runner(setup, room);
  std::cerr << " took " << human_duration(watch.seconds()) << "\n";

  hold_ratios(&command, *runner);
  const server::ServedModel model = served_model(command, *runner);
  const double ratio = expected_ratio(command, *runner);
  scheduler.expected_cr = bound_is_taken(runner->policy()) ? 1.0 : ratio;
  if (bound_is_taken(runner->policy())) scheduler.cr_margin = 0.0;
  if (runner->policy().shares_prefixes()) {
    scheduler.snapshots = static_cast<size_t>(command.snapshots);
  } else if (command.snapshots > 0) {
    std::cerr << "prompts' beginnings are not shared: what " << model.policy
              << " keeps depends on what comes behind them\n";
  }
  scheduler.chunk_tokens = chunk_tokens(scheduler.step_tokens, model.vocab_size);
  scheduler.chunks_matter =
      precision(command.model.kv) != DType::kF32 || command.model.compression.cr > 0.0;
  const std::unique_ptr<engine::SessionStore> sessions = open_sessions(command, *runner);
  scheduler.sessions = sessions.get();
  scheduler.slots_of = [&](engine::SequenceId sequence) { return runner->slots(sequence); };

  std::unique_ptr<server::Api> api;
  server::HttpServer http(command.http, [&](server::HttpRequest request, const auto& exchange) {
    api->handle(std::move(request), exchange);
  });
  bool broken = false;
  command.engine.on_broken = [&] {
    broken = true;
    http.stop();
  };
  print_plan(command, *runner, ratio);
  engine::EngineLoop loop(*runner, command.engine);
  api = std::make_unique<server::Api>(
      model, loop,
      server::ApiOptions{keys, server::allowed_hosts(command.http.address, command.hosts), 256,
                         DMC_VERSION, static_cast<double>(page_format(config, command).bytes()),
                         [&] { return static_cast<int64_t>(http.connections()); },
                         !command.no_page});
  const bool v6 = command.http.address.find(':') != std::string::npos;
  std::cerr << model.id << " (" << model.policy << ", context " << model.context << ") at http://"
            << (v6 ? "[" : "") << command.http.address << (v6 ? "]" : "") << ":" << http.port()
            << (keys.empty() ? "" : ", with a key") << "; Ctrl-C ends it\n"
            << std::flush;
  http.run([&] {
    api->drain();
    std::cerr << "ending: no new requests; what runs is finished\n";
  });
  loop.stop();
  if (broken) throw internal_error("the model failed in three steps in a row; see the log above");
  std::cerr << "ended\n";
  return 0;
}

}  // namespace

std::function<int()> setup_serve(CLI::App& app) {
  auto command = std::make_shared<ServeCommand>();
  engine::SchedulerOptions& scheduler = command->engine.scheduler;
  add_model_options(app, command->model, "builtin-dms");
  add_inference_options(app, command->model, /*with_policy=*/true);
  add_device_option(app, command->model);
  app.add_option("--host", command->http.address, "address to listen on; 0.0.0.0: all")
      ->capture_default_str();
  app.add_option("--port", command->http.port, "0: any that is free")->capture_default_str();
  app.add_option("--api-key-file", command->key_file,
                 "file with the keys that requests must show, one a line; also DMC_API_KEY in the "
                 "environment")
      ->check(CLI::ExistingFile);
  app.add_flag("--insecure", command->insecure, "serve others than this machine without a key");
  app.add_option("--allow-host", command->hosts,
                 "further names that requests may have for this server (Host header)");
  app.add_option("--name", command->name, "the model's id (default: its folder's name)");
  app.add_option("--context", command->context,
                 "tokens of prompt and text together (default: the model's context)")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--cache-memory", command->memory,
                 "of the KV cache's pages, such as 512MiB or 2GiB (default: half of what is free)")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--max-sequences", scheduler.max_sequences, "texts that are written at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option(
      "--elastic", command->elastic,
      "MIN..MAX: hold the ratio at MIN while the cache has room, and compress harder, up "
      "to MAX, as its pages run out (retrofitted models; what is written then depends on "
      "the load)");
  app.add_option("--step-tokens", scheduler.step_tokens,
                 "tokens of prompts in a step; fewer: others wait less, and prompts longer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--queue", command->engine.queue, "requests that may wait; more are told to retry")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--connections", command->http.connections, "that are open at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--snapshots", command->snapshots,
                 "beginnings of prompts that stay in the cache, so that others need not compute "
                 "them again; 0: none")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--session-dir", command->session_dir,
                 "folder that conversations are saved in, compressed as they are, so that they go "
                 "on from there after a restart");
  app.add_option("--session-size", command->session_bytes,
                 "of all files in it, such as 500MiB or 4GiB; those used longest ago go")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("4GiB");
  app.add_flag("--no-page", command->no_page, "no web page at /");
  app.footer(list_of_policies() +
             "Examples:\n"
             "  dmc serve -m models/builtin-dms\n"
             "  dmc serve -m ~/models/mine-4x --kv int8 --cache-memory 2GiB\n"
             "  dmc serve -m ~/models/mine-4x --elastic 2..6 --cache-memory 512MiB\n"
             "  dmc serve -m DIR --host 0.0.0.0 --api-key-file keys.txt\n"
             "  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\\n"
             "    -d '{\"prompt\": \"def read_file(path):\", \"max_tokens\": 40}'");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
