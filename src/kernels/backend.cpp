#include "kernels/backend.h"

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/join.h"
#include "base/named.h"
#include "kernels/cpu/attention_cpu.h"
#include "kernels/cpu/linear_cpu.h"
#include "kernels/ref/attention_ref.h"
#include "kernels/ref/linear_ref.h"

namespace dmc::kernels {
namespace {

constexpr Backend kBackends[] = {
    {"cpu", cpu::attend_slots, cpu::attend_rows, cpu::linear_block, cpu::round_activations,
     cpu::group_block, cpu::silu_product},
    {"ref", ref::attend_slots, ref::attend_rows, ref::linear_block, ref::round_activations,
     ref::group_block, ref::silu_product},
};

const Backend& choose() {
  const char* wanted = std::getenv("DMC_BACKEND");
  if (wanted == nullptr) return kBackends[0];
  if (const Backend* known = find_named(kBackends, wanted)) return *known;
  throw invalid_argument(std::string("DMC_BACKEND: \"") + wanted + "\" is not one of " +
                         join(kBackends, ", ", &Backend::name));
}

}  // namespace

std::span<const Backend> backends() { return kBackends; }

const Backend& backend() {
  static const Backend& chosen = choose();
  return chosen;
}

}  // namespace dmc::kernels
