// What the server says and needs to know of its model, beside the runner.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dmc::server {

struct ServedModel {
  std::string id;    // as requests name it
  std::string root;  // where it came from; what load generators look a tokenizer up by
  int64_t created = 0;
  int64_t context = 0, vocab_size = 0;
  text::Tokenizer tokenizer;
  std::optional<text::ChatTemplate> chat = {};
  std::vector<int64_t> eos_ids = {};    // that end a text
  std::vector<int64_t> reply_ids = {};  // that end a chat's reply, the others among them
  nlohmann::ordered_json tokenizer_info = nlohmann::ordered_json::object();
  // Of the cache.
  std::string policy;
  std::string slot_type;
  bool holds_ratio = false;  // whether a request may say at which ratio its cache is held
  int64_t layers = 0, kv_heads = 0;
  double slot_bytes = 0.0;  // of one slot of one head: a key and a value
};

}  // namespace dmc::server
