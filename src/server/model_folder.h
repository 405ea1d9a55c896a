// What a server says of itself that follows from the model's folder and from its own address.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "server/served_model.h"

namespace dmc::server {

// A model under this name, or without one under that of its folder or file, with its tokenizer and
// chat template; `eos_ids` are those of its config. What its runner says is left to be filled in.
// Errors as Tokenizer and ChatTemplate have.
ServedModel model_in(const std::filesystem::path& dir, const std::string& name, int64_t context,
                     int64_t vocab_size, const std::vector<int64_t>& eos_ids);

bool is_loopback(const std::string& address);

// What requests may name as Host, `further` names with them; none: any.
std::vector<std::string> allowed_hosts(const std::string& address,
                                       std::vector<std::string> further);

}  // namespace dmc::server
