#include "model/safetensors.h"

#include "tests/fuzz/target.h"

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
