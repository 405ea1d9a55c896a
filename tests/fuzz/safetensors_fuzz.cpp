#include "model/safetensors.h"

#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 5, .megabytes = 200};

// Whatever the header says, every tensor lies inside of the file: all bytes are read.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return dmc::fuzz::accept_errors([&] {
    const auto dir = dmc::fuzz::directory_with("model.safetensors", data, size);
    const dmc::model::SafetensorsFile file(dir / "model.safetensors");
    volatile uint8_t sum = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      for (std::byte byte : tensor.bytes) sum = sum + static_cast<uint8_t>(byte);
    }
  });
}

std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() {
  const auto header = [](auto entry) {
    return [entry](size_t n) {
      std::string text = "{";
      for (size_t i = 0; text.size() < n; ++i) text += (i > 0 ? "," : "") + entry(i);
      return with_header(text + "}", 4);
    };
  };
  const auto tensor = [](size_t i) {
    return "\"t" + std::to_string(i) + R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  };
  const auto metadata = [](size_t i) { return "\"m" + std::to_string(i) + "\":0"; };
  return {{"empty tensors", header(tensor)},
          {"members that are no tensors", header(metadata)},
          {"one tensor of many extents",
           [](size_t n) {
             std::string text = R"({"a":{"dtype":"F32","data_offsets":[0,4],"shape":[1)";
             while (text.size() < n) text += ",1";
             return with_header(text + "]}}", 4);
           }},
          {"blanks", [](size_t n) { return with_header("{" + std::string(n, ' ') + "}"); }}};
}
