#include "model/adapter.h"

#include "base/json.h"
#include "model/config_file.h"
#include "model/safetensors_weights.h"
#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 200};

namespace {

const dmc::model::ModelConfig& base() {
  static const auto value = dmc::model::read_model_config("models/builtin");
  return value;
}

}  // namespace

// An adapter that is accepted has its tensors read to their ends.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto path = dmc::fuzz::directory_with("adapter.safetensors", data, size);
  return dmc::fuzz::accept_errors([&] {
    const dmc::model::AdapterFile file(path / "adapter.safetensors");
    const auto layout = dmc::model::decoder_layout(file.applied_to(base()));
    for (const std::string& name : dmc::model::adapter_tensors(layout)) {
      const auto matrix =
          dmc::model::open_matrix(file.tensors(), file.origin(), name, layout.shapes.at(name));
      std::vector<float> numbers(static_cast<size_t>(matrix->rows() * matrix->columns()));
      matrix->read_rows(0, matrix->rows(), numbers.data());
    }
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"metadata", [](size_t n) {
             std::string inner = R"({\"decision_source\":\"adapter\")";
             for (size_t i = 0; inner.size() < n; ++i)
               inner += ",\\\"k" + std::to_string(i) + "\\\":0";
             return with_header("{\"__metadata__\":{\"dmc_config\":\"" + inner + "}\"}}");
           }}};
}
