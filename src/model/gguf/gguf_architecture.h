// The model families as GGUF files know them: what their tensors are called there, and how they are
// stored in another way than in a Hugging Face directory.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/gguf.h"

namespace dmc::model {

// A module of the family's checkpoint and what GGUF calls it, without ".weight" and ".bias".
struct GgufModule {
  std::string_view ours, theirs;
  bool turned = false;  // stored [out, in] where the checkpoint has [in, out]
};

struct GgufArchitecture {
  std::string_view name;        // general.architecture, and what most keys begin with
  std::string_view model_type;  // of our families
  std::string_view layer;       // what begins the names of our layers' modules, before the number
  std::span<const GgufModule> modules, layer_modules;
  // Rows of q and k are stored so that the two channels that rotary embedding turns together lie
  // side by side, while checkpoints have them half a head apart.
  bool interleaved_pairs;
};

// Error(kData) naming the file for a family that is not supported.
const GgufArchitecture& gguf_architecture(const GgufFile& file);

// A key of the architecture: "llama." + key.
std::string gguf_key(const GgufArchitecture& architecture, std::string_view key);
// The whole number of such a key; one that is listed by layer must be the same in all.
int64_t gguf_size(const GgufFile& file, const GgufArchitecture& architecture, std::string_view key);

// Where a tensor of our layout stands in the file.
struct GgufPlace {
  std::string name;
  bool turned = false;
};
// Nothing for a tensor that GGUF has no name for.
std::optional<GgufPlace> gguf_place(const GgufArchitecture& architecture, std::string_view ours);

}  // namespace dmc::model
