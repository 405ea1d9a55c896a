// Ctrl-C as a question: the first one asks the running command to stop at the next safe point, a
// second one ends the process the usual way.
#pragma once

namespace dmc::cli {

void catch_interrupts();    // SIGINT and SIGTERM
void let_interrupts_end();  // while waiting for input, say: the first one ends the process
bool interrupted();

constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells report it

}  // namespace dmc::cli
