// For tests: the processor time that this process has used since an object was made, which does not
// depend on what else the machine does.
#pragma once

#include <ctime>

namespace dmc {

class CpuWatch {
 public:
  double seconds() const {
    return static_cast<double>(std::clock() - start_) / static_cast<double>(CLOCKS_PER_SEC);
  }

 private:
  std::clock_t start_ = std::clock();
};

// How much longer what is timed may take with sanitizers, which check every access.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlowdown = 10.0;
#else
constexpr double kSlowdown = 1.0;
#endif

}  // namespace dmc
