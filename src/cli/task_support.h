// What the commands that run evaluations share.
#pragma once

#include <filesystem>

#include "cli/options.h"
#include "eval/score.h"
#include "eval/tasks/task.h"

namespace dmc::cli {

// A score on held-out text as the other tasks' scores are.
eval::TaskScore as_task(const eval::Score& score);

// The file a task is run on: the user's own text where that will do, else the one under `data_dir`.
// Error(kInvalidArgument) that says what to put where.
std::filesystem::path task_file(const eval::Task& task, const TextOptions& text,
                                const std::filesystem::path& data_dir);

}  // namespace dmc::cli
