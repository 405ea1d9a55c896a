#include "cli/interrupt.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace dmc::cli {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;
const InterruptSentences* g_sentences = nullptr;

void say(const char* text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, std::strlen(text));
}

void say_sentence(const char* sentence) {
  if (sentence == nullptr) return;
  say("\ndmc: ");  // a progress bar may stand in the line
  say(sentence);
  say("\n");
}

void on_signal(int signal) {
  const int error = errno;
  const bool first = g_interrupted == 0;
  g_interrupted = 1;
  if (first) {
    say_sentence(g_sentences != nullptr ? g_sentences->first : nullptr);
  } else if (signal != SIGHUP) {
    say_sentence(g_sentences != nullptr ? g_sentences->second : nullptr);
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  errno = error;
}

void handle_hangup(void (*handler)(int)) {
  if (std::signal(SIGHUP, handler) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
}

}  // namespace

void catch_interrupts(const InterruptSentences* sentences) {
  g_sentences = sentences;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  handle_hangup(on_signal);
}

void let_interrupts_end() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  handle_hangup(SIG_DFL);
}

bool interrupted() { return g_interrupted != 0; }

}  // namespace dmc::cli
