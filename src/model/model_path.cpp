#include "model/model_path.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/gguf.h"

namespace dmc::model {
namespace fs = std::filesystem;
namespace {

std::optional<fs::path> from_environment(const char* variable) {
  const char* const value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return fs::path(value);
}

fs::path hub_cache() {
  if (const auto cache = from_environment("HF_HUB_CACHE")) return *cache;
  if (const auto home = from_environment("HF_HOME")) return *home / "hub";
  if (const auto cache = from_environment("XDG_CACHE_HOME")) return *cache / "huggingface" / "hub";
  return from_environment("HOME").value_or("") / ".cache" / "huggingface" / "hub";
}

// "org/name" in letters, digits and "-_.", as the hub has it.
bool is_hub_name(const std::string& name) {
  const size_t slash = name.find('/');
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  return slash != name.npos && slash > 0 && slash + 1 < name.size() && name[0] != '.' &&
         std::ranges::count(name, '/') == 1 && name.find("..") == name.npos &&
         std::ranges::all_of(name, [&](char c) { return c == '/' || plain(c); });
}

// A folder of files that were downloaded one by one may hold a GGUF file alone.
fs::path model_in(const fs::path& snapshot) {
  if (is_there(snapshot / "config.json")) return snapshot;
  std::optional<fs::path> only;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(snapshot, ignored)) {
    if (!is_gguf(entry.path())) continue;
    if (only) return snapshot;  // several: the user has to choose
    only = entry.path();
  }
  return only.value_or(snapshot);
}

}  // namespace

fs::path find_model(const std::string& name) {
  std::error_code ignored;
  if (fs::exists(name, ignored) || !is_hub_name(name)) return name;
  std::string folder = "models--" + name;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path cached = hub_cache() / folder;
  const fs::path main = cached / "refs" / "main";
  constexpr size_t kLongestRef = 1000;
  std::string revision = is_there(main) ? read_text_file(main, kLongestRef) : "";
  revision.resize(std::min(revision.find_first_of(" \n"), revision.size()));
  const fs::path snapshot = cached / "snapshots" / revision;
  const bool inside = !revision.empty() && revision.find_first_of("/.") == revision.npos;
  return inside && fs::is_directory(snapshot, ignored) ? model_in(snapshot) : fs::path(name);
}

void require_model_path(const fs::path& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored) || is_gguf(model)) return;
  const std::string name = model.string();
  if (is_there(model)) {
    throw invalid_argument("model", name + " is neither a model directory nor a GGUF file");
  }
  if (is_hub_name(name)) {
    throw invalid_argument("model", name + " is no folder or GGUF file here, nor in " +
                                        hub_cache().string() + "; download it with: hf download " +
                                        name);
  }
  throw invalid_argument("model", "there is no folder or GGUF file " + name);
}

}  // namespace dmc::model
