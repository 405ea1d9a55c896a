// The Python that runs in a sandbox's processes before any code of others does.
#pragma once

namespace dmc::sandbox {

// What a judging process says when all tests have passed.
inline constexpr auto kPassedWord = "passed";

// Standard input is the program; kPassedWord to 5 at its end.
const char* probe_wrapper();

// Standard input is the function's name, a line, and the program. Calls come in through 3, a line
// each, and go out through 4 as results.
const char* program_wrapper();

// Standard input is JSON with the function's name, helpers and tests. Calls go out through 4, and
// results come in through 3; kPassedWord to 5 at the end.
const char* judge_wrapper();

}  // namespace dmc::sandbox
