#include "model/safetensors.h"
#include "base/file.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/quoted.h"

namespace dmc::model {
namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLargestHeader = 100'000'000;
constexpr size_t kMostTensors = 100'000;
constexpr size_t kMostDimensions = 8;
constexpr size_t kMostHeaderValues = 32 * kMostTensors;  // a tensor of 8 dimensions has 14
constexpr size_t kAlignment = 64;
constexpr auto kMetadataKey = "__metadata__";

struct Header {
  nlohmann::json json;
  std::span<const std::byte> data;  // the bytes after the header
};

Header read_header(std::span<const std::byte> file, const std::string& origin) {
  uint64_t size = 0;
  if (file.size() < sizeof size) {
    throw data_error(origin + ": " + std::to_string(file.size()) +
                     " bytes are too few for a safetensors file");
  }
  std::memcpy(&size, file.data(), sizeof size);
  if (size > kLargestHeader || size > file.size() - sizeof size) {
    throw data_error(origin + ": the header claims " + std::to_string(size) +
                     " bytes, the file has " + std::to_string(file.size()) +
                     "; it is truncated or not a safetensors file");
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof size, size);
  if (!text.starts_with('{')) throw data_error(origin + ": the header is not a JSON object");
  return {parse_json(text, origin, kMostHeaderValues), file.subspan(sizeof size + size)};
}

// a * b, or Error: sizes come from the file.
uint64_t checked_product(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw data_error(what + ": its size overflows");
  return product;
}

TensorView read_entry(const nlohmann::json& entry, std::span<const std::byte> data,
                      const std::string& what) {
  try {
    TensorView view;
    const auto dtype_text = entry.at("dtype").get<std::string>();
    const std::optional<DType> dtype = dtype_from_name(dtype_text);
    if (!dtype) throw data_error(what + ": dtype " + in_quotes(dtype_text) + " is not supported");
    view.dtype = *dtype;
    uint64_t bytes = dtype_size(*dtype);
    if (entry.at("shape").size() > kMostDimensions) {
      throw data_error(what + ": more than 8 dimensions");
    }
    for (const auto& extent : entry.at("shape")) {
      if (!extent.is_number_unsigned())
        throw data_error(what + ": its shape is not of whole numbers");
      bytes = checked_product(bytes, extent.get<uint64_t>(), what);
      view.shape.push_back(extent.get<int64_t>());
    }
    const auto& offsets = entry.at("data_offsets");
    if (offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      throw data_error(what + ": data_offsets must be two whole numbers");
    }
    const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
    if (begin > end || end > data.size()) {
      throw data_error(what + ": its data ends at byte " + std::to_string(end) +
                       ", the file's data has " + std::to_string(data.size()) +
                       "; the file is truncated");
    }
    if (end - begin != bytes) {
      throw data_error(what + ": dtype and shape need " + std::to_string(bytes) +
                       " bytes, data_offsets give " + std::to_string(end - begin));
    }
    view.bytes = data.subspan(begin, end - begin);
    return view;
  } catch (const nlohmann::json::exception&) {
    throw data_error(what + ": needs dtype, shape and data_offsets");
  }
}

// The format forbids overlaps and holes: both would hide data from one reader or another.
void require_gapless(const TensorMap& tensors, std::span<const std::byte> data,
                     const std::string& origin) {
  std::vector<std::span<const std::byte>> parts;
  for (const auto& [name, view] : tensors) {
    if (!view.bytes.empty()) parts.push_back(view.bytes);
  }
  std::ranges::sort(parts, {}, [](const auto& part) { return part.data(); });
  const std::byte* end = data.data();
  for (const auto& part : parts) {
    if (part.data() != end) throw data_error(origin + ": tensors overlap or leave a hole");
    end = part.data() + part.size();
  }
  if (end != data.data() + data.size()) {
    throw data_error(origin + ": bytes after the last tensor belong to none");
  }
}

}  // namespace

int64_t TensorView::numel() const {
  int64_t product = 1;
  for (int64_t extent : shape) product *= extent;
  return product;
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(std::make_shared<MappedFile>(path)) {
  const std::string origin = path.string();
  const Header header = read_header(file_->bytes(), origin);
  if (header.json.size() > kMostTensors) throw data_error(origin + ": more than 100,000 tensors");
  for (const auto& [name, entry] : header.json.items()) {
    if (name != kMetadataKey) {
      tensors_[name] = read_entry(entry, header.data, origin + ": tensor " + in_quotes(name));
      continue;
    }
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) throw data_error(origin + ": __metadata__ must hold strings");
      metadata_[key] = value.get<std::string>();
    }
  }
  require_gapless(tensors_, header.data, origin);
}

namespace {

// The file of each tensor that the index lists; nothing where there is no index.
std::map<std::string, std::string> read_index(const fs::path& index) {
  if (!is_there(index)) return {};
  const nlohmann::json json =
      parse_json(read_text_file(index, kLargestHeader), index.string(), kMostHeaderValues);
  if (!json.contains("weight_map") || !json["weight_map"].is_object() ||
      json["weight_map"].empty()) {
    throw data_error(index.string() + ": key weight_map is missing, empty or not an object");
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != std::string::npos || name.starts_with("..")) {
      throw data_error(index.string() + ": weight_map names " + in_quotes(name) + " for " +
                       in_quotes(tensor) + ", expected a file name in the same folder");
    }
    file_of[tensor] = name;
  }
  return file_of;
}

std::string to_string(std::span<const int64_t> shape) {
  std::string text = "[";
  for (int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

// PyTorch's own files are programs for its unpickler; they are named, not read.
void require_safetensors(const fs::path& dir) {
  if (is_there(dir / "model.safetensors") || is_there(dir / "model.safetensors.index.json")) {
    return;
  }
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!is_there(dir / name)) continue;
    throw data_error(dir.string() + " has its weights in " + name +
                     ", which may run code when it is read and is not supported; make safetensors "
                     "of it where transformers is installed: python -c \"from transformers import "
                     "AutoModelForCausalLM as M; M.from_pretrained('" +
                     dir.string() + "').save_pretrained('" + dir.string() + "')\"");
  }
}

}  // namespace

WeightsDirectory::WeightsDirectory(const fs::path& dir) : dir_(dir) {
  require_safetensors(dir);
  const auto file_of = read_index(dir / "model.safetensors.index.json");
  std::set<std::string> names;
  for (const auto& [tensor, name] : file_of) names.insert(name);
  if (names.empty()) names.insert("model.safetensors");
  std::map<std::string, std::string> found_in;
  for (const std::string& name : names) {
    files_.emplace_back(dir / name);
    for (const auto& [tensor, view] : files_.back().tensors()) {
      if (!tensors_.emplace(tensor, view).second) {
        throw data_error((dir / name).string() + ": tensor " + in_quotes(tensor) +
                         " is also in another shard");
      }
      found_in[tensor] = name;
    }
  }
  for (const auto& [tensor, name] : file_of) {
    const auto found = found_in.find(tensor);
    if (found == found_in.end() || found->second != name) {
      throw data_error((dir / name).string() + ": tensor " + in_quotes(tensor) +
                       " is not in this file, although the index says so");
    }
  }
}

const TensorView& require_tensor(const TensorMap& tensors, const std::string& origin,
                                 const std::string& name, std::span<const int64_t> shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    throw data_error(origin + ": tensor " + name + " is missing from the weights");
  }
  if (!std::ranges::equal(found->second.shape, shape)) {
    throw data_error(origin + ": tensor " + name + " has shape " + to_string(found->second.shape) +
                     ", config.json implies " + to_string(shape));
  }
  return found->second;
}

void WeightsDirectory::require_whole() const {
  for (const SafetensorsFile& file : files_) file.require_whole();
}

const TensorView& WeightsDirectory::require(const std::string& name,
                                            std::span<const int64_t> shape) const {
  return require_tensor(tensors_, dir_.string(), name, shape);
}

void write_safetensors(const fs::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  header[kMetadataKey] = metadata;
  header[kMetadataKey]["format"] = "pt";  // transformers refuses files that do not say it
  uint64_t offset = 0;
  for (const auto& [name, view] : tensors) {
    header[name] = {{"dtype", dtype_name(view.dtype)},
                    {"shape", view.shape},
                    {"data_offsets", {offset, offset + view.bytes.size()}}};
    offset += view.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 8 + kAlignment - 1) / kAlignment * kAlignment - 8, ' ');
  const uint64_t size = text.size();

  AtomicFile file(path);
  file.write(&size, sizeof size);
  file.write(text.data(), text.size());
  for (const auto& [name, view] : tensors) file.write(view.bytes.data(), view.bytes.size());
  file.commit();
}

}  // namespace dmc::model
