// In the place of the commands that use LibTorch, where the program is built without LibTorch.
#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/commands.h"

namespace dmc::cli {
namespace {

std::function<int()> refuse(CLI::App& app) {
  app.allow_extras();  // whatever else is said, this is the answer
  return [&app]() -> int {
    throw invalid_argument(app.get_name() +
                           ": this program was built without LibTorch, which the command needs; "
                           "`./run build` makes one with it, build/bin/dmc");
  };
}

}  // namespace

std::function<int()> setup_retrofit(CLI::App& app) { return refuse(app); }
std::function<int()> setup_train(CLI::App& app) { return refuse(app); }
std::function<int()> setup_convert(CLI::App& app) { return refuse(app); }
std::function<int()> setup_demo(CLI::App& app) { return refuse(app); }

}  // namespace dmc::cli
