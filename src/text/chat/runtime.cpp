#include "text/chat/runtime.h"

#include <algorithm>

namespace dmc::text::chat {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->parent_) {
    const auto found = scope->variables_.find(name);
    if (found != scope->variables_.end()) return &found->second;
  }
  return nullptr;
}

Runtime::Level::Level(Runtime& runtime, size_t line) : runtime_(runtime) {
  runtime.line_ = line;
  runtime.charge_items(1);
  if (runtime.depth_ == runtime.limits.depth) runtime.fail("expressions or macros nest too deep");
  ++runtime.depth_;
}

void Runtime::charge_items(size_t count) {
  steps_ += count;
  if (steps_ > limits.steps) fail("more than " + std::to_string(limits.steps) + " steps");
}

void Runtime::charge_text(const Text& text) {
  string_work_ += text.bytes().size() + text.untrusted().size() * sizeof(ByteRange);
  if (string_work_ > limits.string_work) {
    fail("more than " + std::to_string(limits.string_work >> 20) + " MiB of strings");
  }
}

Value Runtime::charged(Text text) {
  charge_text(text);
  return Value(std::move(text));
}

void Runtime::charge_comparison(const Value& a, const Value& b) {
  constexpr size_t kPerStep = 64;
  charge_items(std::min(a.weight(), b.weight()) / kPerStep);
}

// Charged, for a macro's output so far is kept while it calls another.
void Runtime::emit(const Text& text) {
  if (output_.bytes().size() + text.bytes().size() > limits.output) {
    fail("more than " + std::to_string(limits.output >> 20) + " MiB of output");
  }
  charge_text(text);
  output_.append(text);
}

Text Runtime::capture(const std::function<void()>& fn) {
  Text outside = std::move(output_);  // an exception ends the whole run: nothing to restore
  output_ = Text();
  fn();
  std::swap(outside, output_);
  return outside;
}

}  // namespace dmc::text::chat
