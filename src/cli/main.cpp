// dmc: the command line. Errors end here, as one sentence and an exit code: 2 for usage, 3 for a
// bad model or data, 1 for our own or the machine's failure.
#include <CLI/CLI.hpp>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <iostream>
#include <map>
#include <new>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/quoted.h"
#include "cli/commands.h"
#include "cli/suggest.h"
#include "cli/training_program.h"

namespace {

// Sentences quote what they are about (base/quoted.h); this is for what they forget.
constexpr size_t kLongestSentence = 1000;

const int kUsage = dmc::exit_code(dmc::ErrorCode::kInvalidArgument);

// What could have been typed where `app` stands: its commands and its options.
std::vector<std::string> known_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* command : app.get_subcommands({})) words.push_back(command->get_name());
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  return words;
}

// What other programs call things, and what there is for it here.
constexpr std::pair<std::string_view, std::string_view> kElsewhere[] = {
    {"--ctx",
     "a sequence may be as long as the model's context; where that can be chosen it is "
     "--context or --length"},
    {"--ctx-size",
     "a sequence may be as long as the model's context; where that can be chosen it "
     "is --context or --length"},
    {"--epochs", "give --steps; how many epochs they are is said when training starts"},
    {"--gpu", "give --device cuda"},
    {"--output", "give --out"},
    {"--dataset", "give --data"},
    {"--quantize", "give --weights int8, and --kv int8 for the cache"},
    {"--compression-ratio", "give --cr"},
    {"--ratio", "give --cr"},
};

std::string about_unknown(const std::string& word, const CLI::App& at) {
  const std::string name = word.substr(0, word.find('='));
  for (const auto& [elsewhere, here] : kElsewhere) {
    if (name == elsewhere) return "there is no " + name + " here; " + std::string(here);
  }
  const std::string meant = dmc::cli::nearest(name, known_words(at));
  const CLI::Option* const model = at.get_option_no_throw("--model");
  std::string sentence = "there is no " + dmc::in_quotes(word) + " here";
  if (!meant.empty()) {
    sentence += "; did you mean " + meant + "?";
  } else if (model != nullptr && model->count() == 0 && !word.starts_with("-")) {
    sentence += "; a model is given as -m " + word;
  }
  return sentence;
}

int report_usage(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  const std::vector<std::string> unknown = at->remaining();
  if (unknown.empty()) {
    std::cerr << "dmc: " << dmc::printable(error.what(), kLongestSentence);
  } else {  // the parser may have stumbled over what is missing because of it; name the cause
    std::cerr << "dmc: " << dmc::printable(about_unknown(unknown.front(), *at), kLongestSentence);
  }
  std::cerr << "\nsee: " << (at == &app ? "dmc" : "dmc " + at->get_name()) << " --help\n";
  return kUsage;
}

std::string first_line(const char* text) {
  return std::string(text).substr(0, std::string(text).find('\n'));
}

// What was printed must be where it belongs: a report on a full disk is none.
int flushed(int code) {
  errno = 0;
  std::cout.flush();
  if (std::cout || code != 0) return code;
  const std::string why = errno == 0 ? "" : std::string(": ") + std::strerror(errno);
  throw dmc::internal_error("the output cannot be written" + why +
                            "; make room where it goes to, or send it elsewhere");
}

int guarded(const std::function<int()>& run) {
  try {
    return flushed(run());
  } catch (const dmc::Error& error) {
    std::cerr << "dmc: " << dmc::printable(dmc::command_line_sentence(error), kLongestSentence)
              << "\n";
    return dmc::exit_code(error.code());
  } catch (const std::bad_alloc&) {
    std::cerr << "dmc: out of memory; try a smaller --batch, --length or context\n";
  } catch (const std::exception& error) {  // LibTorch's carry a stack trace after the first line
    std::cerr << "dmc: " << dmc::printable(first_line(error.what()), kLongestSentence) << "\n";
  }
  return dmc::exit_code(dmc::ErrorCode::kInternal);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit (ulimit -f) is an error of its writer
  CLI::App app("Dynamic Memory Compression for language models: a KV cache that learns to be small",
               "dmc");
  app.set_version_flag("--version", "dmc " DMC_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  std::map<const CLI::App*, std::function<int()>> runs;
  for (const dmc::cli::Command& command : dmc::cli::commands()) {
    if (command.setup == nullptr && argc > 1 && command.name == argv[1]) {
      return guarded([&]() -> int { dmc::cli::become_training_program(argv); });
    }
    CLI::App* sub = app.add_subcommand(std::string(command.name), std::string(command.summary));
    if (command.setup != nullptr) runs[sub] = command.setup(*sub);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help, --version
      return guarded([&] { return app.exit(error); });
    }
    return report_usage(app, error);
  }
  return guarded(runs.at(app.get_subcommands().front()));
}
