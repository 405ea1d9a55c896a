// What is done to a text before it is split into pieces.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/work.h"

namespace dmc::text {

// Rewrites *text, valid UTF-8 before and after. `at_start` says that the section begins the whole
// text, rather than following a special token. What it makes of a text is charged to `work`.
using Normalizer = std::function<void(std::string* text, bool at_start, Work& work)>;

// The "normalizer" object of a tokenizer.json; "Sequence" gives several. Error(kData) naming
// `origin` for a type or setting that is not supported, since leaving it out would change the ids.
std::vector<Normalizer> read_normalizers(const nlohmann::json& spec, const std::string& origin);

void apply_normalizers(const std::vector<Normalizer>& normalizers, bool at_start, Work& work,
                       std::string* text);

void replace_all(std::string_view from, std::string_view to, Work& work, std::string* text);

}  // namespace dmc::text
