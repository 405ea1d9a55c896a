// For threads that are as many as there are cores, each with work of its own.
#pragma once

namespace dmc {

// While it lives, parallel_for() on this thread runs all ranges itself, in order.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  bool outer_;
};

}  // namespace dmc
