#include "text/work.h"

#include <time.h>

#include <algorithm>

#include "base/error.h"

namespace dmc::text {
namespace {

constexpr size_t kMadePerByte = 64, kMadeAnyway = size_t{16} << 20;
constexpr int64_t kNanosecondsPerByte = 4000, kNanosecondsAnyway = 2'000'000'000;
constexpr size_t kLargestText = size_t{1} << 40;  // more would overflow, and is nowhere

int64_t nanoseconds(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

// The time of the thread, so that a machine that is busy otherwise makes no difference.
Work::Work(const std::string& origin, size_t text_bytes)
    : origin_(origin),
      most_made_(kMadeAnyway + kMadePerByte * std::min(text_bytes, kLargestText)),
      deadline_(nanoseconds(CLOCK_THREAD_CPUTIME_ID) + kNanosecondsAnyway +
                kNanosecondsPerByte * static_cast<int64_t>(std::min(text_bytes, kLargestText))) {}

// The thread's clock costs a system call, the coarse one a few loads.
void Work::look_at_clock() {
  constexpr int64_t kBetweenLooks = 20'000'000;
  const int64_t now = nanoseconds(CLOCK_MONOTONIC_COARSE);
  if (now - last_look_ < kBetweenLooks) return;
  last_look_ = now;
  if (nanoseconds(CLOCK_THREAD_CPUTIME_ID) > deadline_) fail();
}

void Work::fail() const {
  throw data_error(origin_ +
                   ": the tokenizer needs too much work for this text; its normalizer, "
                   "pre_tokenizer or decoder makes more of it than any published one");
}

void require_few_steps(size_t count, const char* what, const std::string& origin) {
  if (count <= kMostSteps) return;
  throw data_error(origin + ": has more than " + std::to_string(kMostSteps) + " " + what);
}

}  // namespace dmc::text
