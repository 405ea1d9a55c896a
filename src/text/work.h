// What a tokenizer's file may make this program do with a text: files come from strangers, and a
// short chain of replacements doubles a text with every link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace dmc::text {

class Work {
 public:
  // For a text of so many bytes: 64 bytes of strings made on the way for each and 16 MiB, and 4 us
  // of this thread's processor time for each and 2 s. Published tokenizers need a tenth of the
  // former and a hundredth of the latter. `origin` names the file; it must outlive this.
  Work(const std::string& origin, size_t text_bytes);

  // Error(kData) naming the file if that is more than may be made, or took too long. To be called
  // as a string grows, not when it has grown.
  void charge(size_t bytes) {
    made_ += bytes;
    if (made_ > most_made_) fail();
    tick(bytes);
  }
  // Counts steps that make nothing, and looks at the clock now and then.
  void tick(size_t steps = 1) {
    constexpr size_t kStepsBetweenLooks = 4096;
    steps_ += steps;
    if (steps_ < kStepsBetweenLooks) return;
    steps_ = 0;
    look_at_clock();
  }
  // After a step of which nobody knows how long it takes. Cheap.
  void look_at_clock();

 private:
  [[noreturn]] void fail() const;

  const std::string& origin_;
  size_t made_ = 0, most_made_, steps_ = 0;
  int64_t last_look_ = 0, deadline_;
};

constexpr size_t kMostSteps = 64;  // normalizers, splitters or decoders of a pipeline
// Error(kData) naming `origin` if there are more `what`.
void require_few_steps(size_t count, const char* what, const std::string& origin);

}  // namespace dmc::text
