// Ctrl-C as a question: the first one asks the running command to stop at the next safe point, a
// second one ends the process the usual way.
#pragma once

namespace dmc::cli {

// What is said at once on stderr, each behind "dmc: ".
struct InterruptSentences {
  const char *first, *second;
};

// SIGINT, SIGTERM and SIGHUP. `sentences` must outlive the process; null: nothing is said. A
// terminal that goes away may say so more than once, so SIGHUP never ends the process at once, and
// where nohup has it ignored, it stays so.
void catch_interrupts(const InterruptSentences* sentences = nullptr);
void let_interrupts_end();  // while waiting for input, say: the first one ends the process
bool interrupted();

constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells report it

}  // namespace dmc::cli
