// The text files of a model: tokenizer, chat template and what belongs to them. They lie in a model
// directory, or a GGUF file says in its own words what they would say.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

namespace dmc::text {

// What MODEL/NAME holds; nothing if there is no such file. Of a GGUF file these can be asked for:
// tokenizer.json or tokenizer.model, tokenizer_config.json, generation_config.json and
// chat_template.jinja. Error(kData) for what is longer than `limit` bytes or damaged.
std::optional<std::string> read_model_text(const std::filesystem::path& model,
                                           const std::string& name, size_t limit);

// What messages call it: MODEL/NAME, or the GGUF file.
std::string model_text_origin(const std::filesystem::path& model, const std::string& name);

// Writes generation_config.json and the files of any kind of tokenizer that `from` has into the
// folder `to`; those of a folder byte for byte. Nothing happens if both are the same folder.
void copy_model_texts(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace dmc::text
