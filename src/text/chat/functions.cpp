// Global functions, and how arguments are read.
#include <algorithm>
#include <ctime>

#include "text/chat/builtins.h"

namespace dmc::text::chat {
namespace {

Value range(Runtime& runtime, const Arguments& arguments) {
  const bool one = arguments.positional.size() == 1;
  const int64_t first = one ? 0 : integer_argument(runtime, arguments, 0, "start");
  const int64_t last = integer_argument(runtime, arguments, one ? 0 : 1, "stop");
  const int64_t step = integer_argument(runtime, arguments, 2, "step", 1);
  if (step == 0) runtime.fail("range() cannot go in steps of 0");
  List list;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (static_cast<int64_t>(list.items.size()) == runtime.limits.range) {
      runtime.fail("a range() of more than " + std::to_string(runtime.limits.range) + " numbers");
    }
    list.items.push_back(Value(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  runtime.charge_items(list.items.size());
  return Value(std::move(list));
}

Dict named_values(const Arguments& arguments) {
  Dict dict;
  for (const auto& [name, value] : arguments.named) dict.set(Text(name), value);
  return dict;
}

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  for (const auto& [name, value] : arguments.named) {
    if (value.depth() >= Value::kDeepest) {
      runtime.fail("a namespace cannot hold " + std::string(value.type_name()));
    }
  }
  return Value(std::make_shared<Namespace>(Namespace{named_values(arguments)}));
}

Value make_dict(Runtime&, const Arguments& arguments) { return Value(named_values(arguments)); }

Value raise_exception(Runtime& runtime, const Arguments& arguments) {
  runtime.refuse(text_argument(runtime, arguments, 0, "message").bytes());
}

Value time_now(Runtime& runtime, const Arguments& arguments) {
  const std::string& format = text_argument(runtime, arguments, 0, "format").bytes();
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[256];
  const size_t size = std::strftime(buffer, sizeof buffer, format.c_str(), &local);
  return runtime.charged(Text(std::string(buffer, size)));
}

}  // namespace

void add_global_functions(Scope* scope) {
  const std::pair<const char*, Value (*)(Runtime&, const Arguments&)> kFunctions[] = {
      {"range", range},
      {"namespace", make_namespace},
      {"dict", make_dict},
      {"raise_exception", raise_exception},
      {"strftime_now", time_now}};
  for (const auto& [name, call] : kFunctions) scope->set(name, Value(Function{call}));
}

const Text& text_argument(Runtime& runtime, const Arguments& arguments, size_t index,
                          const char* name) {
  const Value* value = arguments.find(index, name);
  if (!value || !value->text()) {
    runtime.fail(std::string("argument ") + name + " must be a string, not " +
                 (value ? value->type_name() : "left out"));
  }
  return *value->text();
}

int64_t integer_argument(Runtime& runtime, const Arguments& arguments, size_t index,
                         const char* name, std::optional<int64_t> otherwise) {
  const Value* value = arguments.find(index, name);
  if (!value && otherwise) return *otherwise;
  if (!value || !value->integer()) {
    runtime.fail(std::string("argument ") + name + " must be an integer, not " +
                 (value ? value->type_name() : "left out"));
  }
  return *value->integer();
}

bool truth_argument(const Arguments& arguments, size_t index, const char* name, bool otherwise) {
  const Value* value = arguments.find(index, name);
  return value ? value->is_true() : otherwise;
}

}  // namespace dmc::text::chat
