// Libraries that are looked for when the program runs, because machines that build it lack them.
#pragma once

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace dmc {

// Points `function` at the function `name` of a library that dlopen gave, which messages call
// `called`. Error(kInternal) if it has none.
template <class Function>
void find_function(void* library, const std::string& called, const char* name, Function& function) {
  void* const found = dlsym(library, name);
  if (found == nullptr) throw internal_error(called + " has no function " + name);
  function = reinterpret_cast<Function>(found);
}

}  // namespace dmc
