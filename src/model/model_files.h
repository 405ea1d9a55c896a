// The files of a model directory that weights are split over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace dmc::model {

// What the row scales of a matrix of 8 bits are called.
inline std::string scale_name(const std::string& weight) { return weight + "_scale"; }

constexpr int64_t kShardBytes = 5'000'000'000;  // what Hugging Face's tools split at

struct Shard {
  std::string file;                  // name in the model directory
  std::vector<std::string> tensors;  // names, in the order of the map they came from
};

// Puts tensors (name -> bytes) into files of at most `limit` bytes, a larger tensor into one of its
// own: model.safetensors if one file is enough, else model-00001-of-00003.safetensors and so on.
std::vector<Shard> plan_shards(const std::map<std::string, int64_t>& bytes,
                               int64_t limit = kShardBytes);

// Says which file holds which tensor: writes model.safetensors.index.json where there are several
// shards, and removes what an earlier model left that readers would take for this one's.
void finish_shards(const std::filesystem::path& dir, const std::vector<Shard>& shards,
                   int64_t total_bytes);

}  // namespace dmc::model
