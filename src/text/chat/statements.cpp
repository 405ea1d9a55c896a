#include "text/chat/statements.h"

#include <algorithm>

namespace dmc::text::chat {
namespace {

// Binds one value to one name, or the items of a list to as many names.
void assign(const std::vector<std::string>& targets, const Value& value, Runtime& runtime,
            Scope& scope) {
  if (targets.size() == 1) return scope.set(targets[0], value);
  const std::vector<Value> items = items_of(runtime, value);
  if (items.size() != targets.size()) {
    runtime.fail(std::to_string(items.size()) + " values for " + std::to_string(targets.size()) +
                 " names");
  }
  for (size_t i = 0; i < items.size(); ++i) scope.set(targets[i], items[i]);
}

Value cycle(Runtime& runtime, const Arguments& arguments, size_t index) {
  if (arguments.positional.empty()) runtime.fail("loop.cycle() needs arguments");
  return arguments.positional[index % arguments.positional.size()];
}

// The variable `loop` at one of `items`.
Value loop_state(const std::vector<Value>& items, size_t index) {
  const auto whole = [](size_t number) { return Value(static_cast<int64_t>(number)); };
  const size_t size = items.size();
  Dict loop;
  loop.set(Text("index"), whole(index + 1));
  loop.set(Text("index0"), whole(index));
  loop.set(Text("revindex"), whole(size - index));
  loop.set(Text("revindex0"), whole(size - index - 1));
  loop.set(Text("first"), Value(index == 0));
  loop.set(Text("last"), Value(index + 1 == size));
  loop.set(Text("length"), whole(size));
  if (index > 0) loop.set(Text("previtem"), items[index - 1]);
  if (index + 1 < size) loop.set(Text("nextitem"), items[index + 1]);
  loop.set(Text("cycle"), Value(Function{[index](Runtime& runtime, const Arguments& arguments) {
             return cycle(runtime, arguments, index);
           }}));
  return Value(std::move(loop));
}

}  // namespace

Flow run_block(const Block& block, Runtime& runtime, Scope& scope) {
  for (const auto& statement : block) {
    const Flow flow = statement->run(runtime, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Flow Data::execute(Runtime& runtime, Scope&) const {
  runtime.emit(text_);
  return Flow::kNext;
}

Flow Output::execute(Runtime& runtime, Scope& scope) const {
  runtime.emit(to_text(expression_->eval(runtime, scope)));
  return Flow::kNext;
}

Flow If::execute(Runtime& runtime, Scope& scope) const {
  for (const auto& [condition, block] : branches_) {
    if (condition->eval(runtime, scope).is_true()) return run_block(block, runtime, scope);
  }
  return run_block(otherwise_, runtime, scope);
}

Flow For::execute(Runtime& runtime, Scope& scope) const {
  std::vector<Value> items = items_of(runtime, iterable_->eval(runtime, scope));
  if (condition_) {
    std::erase_if(items, [&](const Value& item) {
      Scope inside(&scope);
      assign(targets_, item, runtime, inside);
      return !condition_->eval(runtime, inside).is_true();
    });
  }
  if (items.empty()) return run_block(otherwise_, runtime, scope);
  for (size_t i = 0; i < items.size(); ++i) {
    runtime.charge_items(1);
    Scope inside(&scope);  // what the body_ sets is gone after each round
    assign(targets_, items[i], runtime, inside);
    if (uses_loop_) inside.set("loop", loop_state(items, i));
    if (run_block(body_, runtime, inside) == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Flow Set::execute(Runtime& runtime, Scope& scope) const {
  assign(targets_, expression_->eval(runtime, scope), runtime, scope);
  return Flow::kNext;
}

Flow SetAttribute::execute(Runtime& runtime, Scope& scope) const {
  const Value value = expression_->eval(runtime, scope);
  const Value* found = scope.find(object_);
  if (!found || !found->name_space()) runtime.fail("'" + object_ + "' is not a namespace");
  if (value.depth() >= Value::kDeepest) {
    runtime.fail("a namespace cannot hold " + std::string(value.type_name()));
  }
  found->name_space()->attributes.set(Text(attribute_), value);
  return Flow::kNext;
}

Flow SetBlock::execute(Runtime& runtime, Scope& scope) const {
  Value value = runtime.charged(runtime.capture([&] { run_block(body_, runtime, scope); }));
  for (const auto& filter : filters_) value = filter->apply(runtime, value, scope);
  if (target_.empty()) {
    runtime.emit(to_text(value));
  } else {
    scope.set(target_, value);
  }
  return Flow::kNext;
}

Flow Macro::execute(Runtime&, Scope& scope) const {
  scope.set(name_, Value(Function{[this](Runtime& runtime, const Arguments& arguments) {
              return call(runtime, arguments);
            }}));
  return Flow::kNext;
}

Value Macro::call(Runtime& runtime, const Arguments& arguments) const {
  if (arguments.positional.size() > parameters_.size()) {
    runtime.fail("macro " + name_ + " takes " + std::to_string(parameters_.size()) + " arguments");
  }
  for (const auto& [given, value] : arguments.named) {
    if (std::ranges::find(parameters_, given, &Parameter::name) == parameters_.end()) {
      runtime.fail("macro " + name_ + " has no argument " + given);
    }
  }
  Scope scope(&runtime.root);  // a macro sees the top level, not where it is called
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    if (const Value* given = arguments.find(i, parameter.name)) {
      scope.set(parameter.name, *given);
    } else if (parameter.otherwise) {
      scope.set(parameter.name, parameter.otherwise->eval(runtime, scope));
    } else {
      scope.set(parameter.name, Value(Undefined{parameter.name}));
    }
  }
  return runtime.charged(runtime.capture([&] { run_block(body_, runtime, scope); }));
}

Flow Section::execute(Runtime& runtime, Scope& scope) const {
  return run_block(body_, runtime, scope);
}

}  // namespace dmc::text::chat
