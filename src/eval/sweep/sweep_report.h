// A sweep as one HTML page and as a table for the terminal.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "eval/sweep/record.h"

namespace dmc::eval {

// One file that needs nothing else: for each task quality against the ratio reached, against bytes
// and against speed, with error bars and the frontier; heat maps side by side; every number.
std::string render_sweep_report(const std::vector<SweepRecord>& records);

// A row for each setting, a column for each task.
void print_sweep(std::ostream& out, const std::vector<SweepRecord>& records);

}  // namespace dmc::eval
