// Which folder or file a model's name means: names of the Hugging Face hub are looked for in what
// its tools have downloaded. Nothing is downloaded here.
#pragma once

#include <filesystem>
#include <string>

namespace dmc::model {

// `name` itself if there is such a folder or file. Else, for "org/name", the newest snapshot in the
// hub's cache (HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub); its only GGUF file where it has no config.json. Else `name`.
std::filesystem::path find_model(const std::string& name);

// Error(kInvalidArgument) of the field "model" unless this is a folder or a GGUF file; for a name
// of the hub it says the command that downloads it.
void require_model_path(const std::filesystem::path& model);

}  // namespace dmc::model
