#include "model/model_files.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace dmc::model {
namespace fs = std::filesystem;

namespace {

constexpr auto kSingleFile = "model.safetensors";
constexpr auto kIndex = "model.safetensors.index.json";

std::string shard_name(size_t index, size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

}  // namespace

std::vector<Shard> plan_shards(const std::map<std::string, int64_t>& bytes, int64_t limit) {
  std::vector<Shard> shards(1);
  int64_t filled = 0;
  for (const auto& [name, size] : bytes) {
    if (filled > 0 && filled + size > limit) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().tensors.push_back(name);
    filled += size;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = shards.size() == 1 ? kSingleFile : shard_name(i, shards.size());
  }
  return shards;
}

void finish_shards(const fs::path& dir, const std::vector<Shard>& shards, int64_t total_bytes) {
  std::error_code ignored;  // most often there is none
  if (shards.size() == 1) {
    fs::remove(dir / kIndex, ignored);
    return;
  }
  nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}}};
  for (const Shard& shard : shards) {
    for (const std::string& name : shard.tensors) index["weight_map"][name] = shard.file;
  }
  write_file_atomically(dir / kIndex, index.dump(2) + "\n");
  fs::remove(dir / kSingleFile, ignored);
}

}  // namespace dmc::model
