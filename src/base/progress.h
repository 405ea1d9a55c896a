// A progress bar on stderr for work that takes more than a few seconds. On a terminal one line is
// redrawn in place; elsewhere (a log file, CI) a line is written now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace dmc {

// What one line shows.
struct ProgressState {
  std::string label;
  int64_t done = 0;
  int64_t total = 0;   // 0 or less: not known, so no bar and no time left
  std::string fields;  // "loss 2.31 CR 1.72 (want 1.80) 5.1k tok/s"
  std::string time;    // "1m 20s left", "took 3m 02s", or empty
};

// `width` columns at most: the bar takes what is left, then the end of the fields is cut.
std::string progress_line(const ProgressState& state, size_t width, bool utf8);
// The same without a bar and of any length, for logs: "training 120/400 (30%) loss 2.31".
std::string progress_log_line(const ProgressState& state);

class ProgressBar {
 public:
  using Seconds = std::function<double()>;  // a clock that only goes forward
  struct Output {
    std::ostream& stream;
    bool redraw;  // in place, for a terminal
    Seconds now;
  };

  ProgressBar(std::string label, int64_t total);  // on stderr
  ProgressBar(std::string label, int64_t total, Output output);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Cheap to call after every unit of work: most calls draw nothing.
  void update(int64_t done, std::string_view fields = {});
  // Leaves the last state on a line of its own; nothing if there was no update. Called once.
  void finish();

 private:
  void draw();
  std::string time_left() const;

  ProgressState state_;
  Output output_;
  double start_;
  // The pace is counted from the first update: a resumed run starts with work it did not do.
  std::optional<int64_t> first_done_;
  double first_time_ = 0.0;
  double last_drawn_ = 0.0;
  bool finished_ = false;
};

}  // namespace dmc
