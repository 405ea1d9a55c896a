#include "cli/task_support.h"

namespace dmc::cli {

eval::TaskScore as_task(const eval::Score& score) {
  return {score.tokens,
          {{"loss", score.loss},
           {"next_token_accuracy", score.next_token_accuracy},
           {"bits_per_byte", score.bits_per_byte, score.bits_per_byte_error}},
          score.compression_ratio};
}

std::filesystem::path task_file(const eval::Task& task, const TextOptions& text,
                                const std::filesystem::path& data_dir) {
  if (task.any_text && !text.data.empty()) return text.data.front();
  return eval::find_file(task, data_dir);
}

}  // namespace dmc::cli
