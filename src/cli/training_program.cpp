#include "cli/training_program.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "base/error.h"

namespace dmc::cli {
namespace {

namespace fs = std::filesystem;

constexpr auto kProgram = "dmc-train";

// LibTorch's threads wait for one another by spinning, as long as GNU's OpenMP lets them: on cores
// that other processes use, too, a step then takes several times as long. It reads this when it is
// loaded; who has set it, or OMP_WAIT_POLICY, is obeyed.
void let_threads_sleep() {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/0);
}

}  // namespace

std::vector<Command> training_commands() {
  return {
      {"retrofit", "teach a dense model to compress its own KV cache"},
      {"train", "train a model without compression"},
      {"convert", "change a model's dtype or KV heads, or make it dense again"},
      {"demo", "retrofit the built-in model live and compare; writes report.html"},
  };
}

fs::path training_program(const fs::path& dmc) {
  const fs::path folder = dmc.parent_path();
  for (const fs::path& program :
       {folder / kProgram, folder.parent_path() / "libexec" / "dmc" / kProgram}) {
    std::error_code ignored;
    if (fs::exists(program, ignored)) return program;
  }
  return {};
}

void become_training_program(char* const* arguments) {
  const fs::path program = training_program(fs::read_symlink("/proc/self/exe"));
  if (program.empty()) {
    throw unavailable("", std::string(arguments[1]) +
                              ": this program was built without LibTorch, which the command "
                              "needs; `./run build` makes one with it, build/bin/dmc");
  }
  let_threads_sleep();
  execv(program.c_str(), arguments);
  throw unavailable(
      "", program.string() + " could not be started: " + std::generic_category().message(errno));
}

}  // namespace dmc::cli
