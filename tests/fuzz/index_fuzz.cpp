#include "model/safetensors.h"
#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 200};

namespace {

// Beside the index stands a file with two tensors.
const std::filesystem::path& model(const uint8_t* data, size_t size) {
  const auto& dir = dmc::fuzz::directory_with("model.safetensors.index.json", data, size);
  static const bool written = [&] {
    static const float values[2] = {1, 2};
    const std::span<const std::byte> two = std::as_bytes(std::span(values)), one = two.first(4);
    dmc::model::write_safetensors(
        dir / "part.safetensors",
        {{"a", {dmc::DType::kF32, {1}, one}}, {"b", {dmc::DType::kF32, {1, 2}, two}}});
    return true;
  }();
  return written ? dir : dir;
}

}  // namespace

// Whatever the index says, what is opened lies beside it.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const dmc::model::WeightsDirectory files(model(data, size));
    DMC_CHECK(files.tensors().size() <= 2);
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  return {{"tensors in the index",
           [](size_t n) {
             std::string text = R"({"weight_map": {)";
             for (size_t i = 0; i < n; ++i) {
               text += (i > 0 ? ",\"t" : "\"t") + std::to_string(i) + "\":\"part.safetensors\"";
             }
             return text + "}}";
           }},
          {"shards", [](size_t n) {
             std::string text = R"({"weight_map": {)";
             for (size_t i = 0; i < n; ++i) {
               const std::string number = std::to_string(i);
               text += (i > 0 ? ",\"t" : "\"t") + number + "\":\"" + number + ".safetensors\"";
             }
             return text + "}}";
           }}};
}
