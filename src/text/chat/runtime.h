// What a template runs in: variables, output and the limits on all it may use.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "text/chat/value.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text::chat {

class Scope {
 public:
  explicit Scope(const Scope* parent) : parent_(parent) {}
  void set(const std::string& name, Value value) { variables_[name] = std::move(value); }
  const Value* find(std::string_view name) const;

 private:
  const Scope* parent_;
  StringMap<Value> variables_;
};

// A template that needs more is stopped with an Error. A page of chat takes a few thousand steps.
struct Limits {
  size_t steps = 1'000'000;
  size_t depth = 2000;                   // nodes within nodes, macros counted through
  size_t output = size_t{4} << 20;       // bytes of the prompt
  size_t string_work = size_t{1} << 26;  // bytes of all strings made on the way, with their marks
  int64_t range = 100'000;               // length of a range()
};

// What went wrong while a template ran. `raised`: the template itself refused its input.
struct RuntimeError {
  size_t line;
  std::string message;
  bool raised = false;
};

class Runtime {
 public:
  explicit Runtime(const Scope* globals) : root(globals) {}

  // What is made: as many steps as items, and work on strings.
  void charge_items(size_t count);
  Value charged(Text text);
  // Before two values are compared, all the way down.
  void charge_comparison(const Value& a, const Value& b);

  void emit(const Text& text);
  // What fn() emits.
  Text capture(const std::function<void()>& fn);
  // While one of these lives, a node runs: every one counts as a step and a level.
  class Level {
   public:
    Level(Runtime& runtime, size_t line);
    ~Level() { --runtime_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Runtime& runtime_;
  };

  [[noreturn]] void fail(const std::string& message) const { throw RuntimeError{line_, message}; }
  [[noreturn]] void refuse(const std::string& message) const {
    throw RuntimeError{line_, message, true};
  }

  Text take_output() { return std::move(output_); }
  size_t line() const { return line_; }

  Scope root;  // top-level variables, which macros see
  const Limits limits;

 private:
  void charge_text(const Text& text);

  size_t line_ = 0, steps_ = 0, string_work_ = 0, depth_ = 0;
  Text output_;
};

}  // namespace dmc::text::chat
