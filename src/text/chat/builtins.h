// Filters, tests, methods and global functions, each in a table by name.
#pragma once

#include <optional>
#include <string_view>

#include "text/chat/runtime.h"

namespace dmc::text::chat {

// `self`: what a filter or a test is applied to, or the object of a method.
struct Builtin {
  const char* name;
  Value (*call)(Runtime&, const Value& self, const Arguments&);
};

// Null if there is none of this name.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_string_method(std::string_view name);
const Builtin* find_dict_method(std::string_view name);

// Puts range(), namespace(), dict(), raise_exception() and strftime_now() into `scope`.
void add_global_functions(Scope* scope);

// object.name and object[index], as Jinja has them; an undefined value if there is no such thing.
Value get_attribute(Runtime& runtime, const Value& object, const std::string& name);
Value get_item(Runtime& runtime, const Value& object, const Value& index);

// The values a for loop goes over: items, keys or characters. Fails for what has none.
std::vector<Value> items_of(Runtime& runtime, const Value& iterable);

// Arguments by position or name; fails, naming `what`, if one is missing or of another type.
const Text& text_argument(Runtime&, const Arguments&, size_t index, const char* name);
int64_t integer_argument(Runtime&, const Arguments&, size_t index, const char* name,
                         std::optional<int64_t> otherwise = {});
bool truth_argument(const Arguments&, size_t index, const char* name, bool otherwise);

Value call_function(Runtime& runtime, const Value& callee, const Arguments& arguments);

}  // namespace dmc::text::chat
