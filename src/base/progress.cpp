#include "base/progress.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "base/human.h"
#include "base/terminal.h"

namespace dmc {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kLogSeconds = 5.0;
constexpr size_t kMinBar = 8, kMaxBar = 30;
constexpr size_t kNarrow = 40;  // columns below which there is no bar

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double share_done(const ProgressState& state) {
  if (state.total <= 0) return 0.0;
  return std::clamp(static_cast<double>(state.done) / static_cast<double>(state.total), 0.0, 1.0);
}

// Rounded down: 100% is only shown when all is done.
std::string percent(const ProgressState& state) {
  return std::to_string(static_cast<int>(100.0 * share_done(state))) + "%";
}

std::string count(const ProgressState& state) {
  std::string text = std::to_string(state.done);
  if (state.total > 0) text.append("/").append(std::to_string(state.total));
  return text;
}

void append(std::string& line, std::string_view part) {
  if (part.empty()) return;
  line += ' ';
  line += part;
}

std::string bar(double share, size_t width, bool utf8) {
  const auto filled = static_cast<size_t>(share * static_cast<double>(width));
  std::string text;
  for (size_t i = 0; i < width; ++i) {
    if (utf8) {
      text += i < filled ? "━" : i == filled ? "╺" : "─";
    } else {
      text += i < filled ? '#' : '.';
    }
  }
  return text;
}

}  // namespace

std::string progress_line(const ProgressState& state, size_t width, bool utf8) {
  std::string right = count(state);
  append(right, state.time);
  append(right, state.fields);
  std::string line = state.label;
  if (state.total > 0 && width >= kNarrow) {
    const size_t used = display_width(line) + display_width(right) + 2;
    const size_t left = width > used ? width - used : 0;
    append(line, bar(share_done(state), std::clamp(left, kMinBar, kMaxBar), utf8));
  }
  append(line, right);
  return std::string(cut_to_width(line, width));
}

std::string progress_log_line(const ProgressState& state) {
  std::string line = state.label + " " + count(state);
  if (state.total > 0) line.append(" (").append(percent(state)).append(")");
  append(line, state.fields);
  append(line, state.time);
  return line;
}

ProgressBar::ProgressBar(std::string label, int64_t total)
    : ProgressBar(std::move(label), total,
                  {std::cerr, is_terminal(std::cerr), Seconds(steady_seconds)}) {}

ProgressBar::ProgressBar(std::string label, int64_t total, Output output)
    : output_(std::move(output)), start_(output_.now()) {
  state_.label = std::move(label);
  state_.total = total;
}

void ProgressBar::update(int64_t done, std::string_view fields) {
  const double now = output_.now();
  const bool first = !first_done_.has_value();
  if (first) {
    first_done_ = done;
    first_time_ = now;
  }
  state_.done = done;
  state_.fields = fields;
  const double interval = output_.redraw ? kRedrawSeconds : kLogSeconds;
  if (!first && now - last_drawn_ < interval) return;
  last_drawn_ = now;
  state_.time = time_left();
  draw();
}

void ProgressBar::finish() {
  if (finished_ || !first_done_.has_value()) return;
  finished_ = true;
  state_.time = "took " + human_duration(output_.now() - start_);
  draw();
  if (output_.redraw) output_.stream << "\n" << std::flush;
}

void ProgressBar::draw() {
  if (output_.redraw) {
    // One column is left free: a full last column makes some terminals wrap.
    const auto width = static_cast<size_t>(std::max(terminal_width(output_.stream) - 1, 1));
    output_.stream << "\r" << progress_line(state_, width, utf8_enabled()) << "\x1b[K";
  } else {
    output_.stream << progress_log_line(state_) << "\n";
  }
  output_.stream << std::flush;
}

std::string ProgressBar::time_left() const {
  const double worked = static_cast<double>(state_.done - *first_done_);
  if (state_.total <= 0 || worked <= 0.0) return "";
  const double seconds_each = (output_.now() - first_time_) / worked;
  const double left = static_cast<double>(std::max<int64_t>(state_.total - state_.done, 0));
  return human_duration(seconds_each * left) + " left";
}

}  // namespace dmc
