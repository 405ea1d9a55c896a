#include "base/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "base/quoted.h"
#include "base/utf8.h"

namespace dmc {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kMostKeys = 65'536, kMostTensors = 100'000;
constexpr uint64_t kLongestName = 512, kMostDimensions = 4;
constexpr int64_t kDefaultAlignment = 32, kLargestAlignment = 65'536;

// Types of metadata, as the file numbers them.
enum : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kText,
  kArray,
  kU64,
  kI64,
  kF64,
};
constexpr uint64_t kTypeBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // 0: not fixed

constexpr GgufType kTensorTypes[] = {
    {0, "F32", 1, 4},       {1, "F16", 1, 2},        {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},     {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},    {9, "Q8_1", 32, 0},      {10, "Q2_K", 256, 0},
    {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144},  {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 0},    {16, "IQ2_XXS", 256, 0},
    {17, "IQ2_XS", 256, 0}, {18, "IQ3_XXS", 256, 0}, {19, "IQ1_S", 256, 0},
    {20, "IQ4_NL", 32, 18}, {21, "IQ3_S", 256, 0},   {22, "IQ2_S", 256, 0},
    {23, "IQ4_XS", 256, 0}, {24, "I8", 1, 0},        {25, "I16", 1, 0},
    {26, "I32", 1, 0},      {27, "I64", 1, 0},       {28, "F64", 1, 0},
    {29, "IQ1_M", 256, 0},  {30, "BF16", 1, 2},      {34, "TQ1_0", 256, 0},
    {35, "TQ2_0", 256, 0},  {39, "MXFP4", 32, 0},
};

std::string supported_types() {
  std::string names;
  for (const GgufType& type : kTensorTypes) {
    if (type.bytes > 0) names += (names.empty() ? "" : ", ") + std::string(type.name);
  }
  return names;
}

const GgufType& tensor_type(uint32_t id, const std::string& what) {
  const auto* const type = std::ranges::find(kTensorTypes, id, &GgufType::id);
  if (type != std::end(kTensorTypes) && type->bytes > 0) return *type;
  const bool known = type != std::end(kTensorTypes);
  throw data_error(what + " is stored as " +
                   (known ? std::string(type->name) : "type " + std::to_string(id)) +
                   ", which is not supported; take a file of one of " + supported_types());
}

template <class T>
T read_as(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Takes the file apart from its beginning; nothing is taken that is not there.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, const std::string& origin)
      : file_(file), rest_(file), origin_(origin) {}

  std::span<const std::byte> bytes(uint64_t size) {
    if (size > rest_.size()) {
      throw data_error(origin_ + ": byte " + std::to_string(offset()) + " asks for " +
                       std::to_string(size) + " bytes, the file has " +
                       std::to_string(rest_.size()) + " more; it is truncated or damaged");
    }
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  template <class T>
  T take() {
    return read_as<T>(bytes(sizeof(T)).data());
  }
  std::string_view text() {
    const auto taken = bytes(take<uint64_t>());
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::string_view name() {
    const std::string_view found = text();
    if (found.size() <= kLongestName) return found;
    throw data_error(origin_ + ": a name of " + std::to_string(found.size()) +
                     " bytes is longer than " + std::to_string(kLongestName));
  }
  // What `count` elements of a type take; texts are walked over.
  std::span<const std::byte> elements(uint32_t type, uint64_t count) {
    const auto before = rest_;
    if (type == kText) {
      for (uint64_t i = 0; i < count; ++i) text();
    } else if (count > rest_.size() / kTypeBytes[type]) {
      bytes(rest_.size() + 1);  // says what is missing
    } else {
      bytes(count * kTypeBytes[type]);
    }
    return before.first(before.size() - rest_.size());
  }
  // What is left from the next multiple of `alignment` on.
  std::span<const std::byte> aligned_rest(uint64_t alignment) const {
    const uint64_t begin = (offset() + alignment - 1) / alignment * alignment;
    return file_.subspan(std::min<uint64_t>(begin, file_.size()));
  }

 private:
  uint64_t offset() const { return file_.size() - rest_.size(); }

  std::span<const std::byte> file_, rest_;
  const std::string& origin_;
};

using Values = std::map<std::string, GgufValue, std::less<>>;

Values read_metadata(Cursor& cursor, uint64_t count, const std::string& origin) {
  Values values;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key(cursor.name());
    const std::string what = origin + ": key " + in_quotes(key);
    GgufValue value{.type = cursor.take<uint32_t>()};
    if (value.type == kArray) {
      value.array = true;
      value.type = cursor.take<uint32_t>();
      value.count = cursor.take<uint64_t>();
      if (value.type == kArray) throw data_error(what + ": arrays of arrays are not supported");
    }
    if (value.type >= std::size(kTypeBytes)) {
      throw data_error(what + " has type " + std::to_string(value.type) + ", which no GGUF has");
    }
    value.bytes = cursor.elements(value.type, value.count);
    if (!values.emplace(key, value).second) throw data_error(what + " appears twice");
  }
  return values;
}

struct Entry {
  std::string name;
  const GgufType* type = nullptr;
  std::vector<int64_t> shape;
  uint64_t offset = 0, bytes = 0;  // in the data behind the directory
};

// a * b, or Error: sizes come from the file.
uint64_t checked_product(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product) || product > uint64_t{INT64_MAX}) {
    throw data_error(what + ": its size overflows");
  }
  return product;
}

// Extents stand in the file from the innermost on.
std::vector<int64_t> read_shape(Cursor& cursor, const std::string& what) {
  const auto dimensions = cursor.take<uint32_t>();
  if (dimensions == 0 || dimensions > kMostDimensions) {
    throw data_error(what + " has " + std::to_string(dimensions) + " dimensions, expected 1 to 4");
  }
  std::vector<int64_t> shape(dimensions);
  for (auto extent = shape.rbegin(); extent != shape.rend(); ++extent) {
    const auto found = cursor.take<uint64_t>();
    if (found == 0) throw data_error(what + ": an extent of its shape is 0");
    *extent = static_cast<int64_t>(checked_product(found, 1, what));
  }
  return shape;
}

uint64_t bytes_of(const Entry& entry, const std::string& what) {
  const GgufType& type = *entry.type;
  if (entry.shape.back() % type.block != 0) {
    throw data_error(what + ": its rows of " + std::to_string(entry.shape.back()) +
                     " numbers are not whole blocks of " + std::to_string(type.block) + ", as " +
                     std::string(type.name) + " stores them");
  }
  auto bytes = static_cast<uint64_t>(type.bytes);
  for (int64_t extent : entry.shape) {
    bytes = checked_product(bytes, static_cast<uint64_t>(extent), what);
  }
  return bytes / static_cast<uint64_t>(type.block);
}

Entry read_entry(Cursor& cursor, uint64_t alignment, const std::string& origin) {
  Entry entry{std::string(cursor.name())};
  const std::string what = origin + ": tensor " + in_quotes(entry.name);
  entry.shape = read_shape(cursor, what);
  entry.type = &tensor_type(cursor.take<uint32_t>(), what);
  entry.bytes = bytes_of(entry, what);
  entry.offset = cursor.take<uint64_t>();
  if (entry.offset % alignment != 0) {
    throw data_error(what + " begins at byte " + std::to_string(entry.offset) +
                     ", which is no multiple of the alignment " + std::to_string(alignment));
  }
  return entry;
}

void require_inside(const Entry& entry, uint64_t size, const std::string& origin) {
  if (entry.offset <= size && entry.bytes <= size - entry.offset) return;
  throw data_error(origin + ": tensor " + in_quotes(entry.name) + " needs " +
                   std::to_string(entry.bytes) + " bytes from byte " +
                   std::to_string(entry.offset) + " on, the file's data has " +
                   std::to_string(size) + "; the file is truncated");
}

// Needs entries that lie inside of the file, so that no sum overflows.
void require_apart(std::vector<Entry>& entries, const std::string& origin) {
  std::ranges::sort(entries, {}, &Entry::offset);
  for (size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].offset >= entries[i - 1].offset + entries[i - 1].bytes) continue;
    throw data_error(origin + ": tensors " + in_quotes(entries[i - 1].name) + " and " +
                     in_quotes(entries[i].name) + " overlap");
  }
}

using Tensors = std::map<std::string, GgufTensor, std::less<>>;

Tensors read_tensors(Cursor& cursor, uint64_t count, uint64_t alignment,
                     const std::string& origin) {
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < count; ++i) entries.push_back(read_entry(cursor, alignment, origin));
  const auto data = cursor.aligned_rest(alignment);
  for (const Entry& entry : entries) require_inside(entry, data.size(), origin);
  require_apart(entries, origin);
  Tensors tensors;
  for (const Entry& entry : entries) {
    const GgufTensor tensor{entry.type, entry.shape, data.subspan(entry.offset, entry.bytes)};
    if (!tensors.emplace(entry.name, tensor).second) {
      throw data_error(origin + ": tensor " + in_quotes(entry.name) + " appears twice");
    }
  }
  return tensors;
}

double number_at(const GgufValue& value, uint64_t index) {
  const std::byte* const from = value.bytes.data() + index * kTypeBytes[value.type];
  switch (value.type) {
    case kU8:
      return read_as<uint8_t>(from);
    case kI8:
      return read_as<int8_t>(from);
    case kU16:
      return read_as<uint16_t>(from);
    case kI16:
      return read_as<int16_t>(from);
    case kU32:
      return read_as<uint32_t>(from);
    case kI32:
      return read_as<int32_t>(from);
    case kF32:
      return read_as<float>(from);
    case kU64:
      return static_cast<double>(read_as<uint64_t>(from));
    case kI64:
      return static_cast<double>(read_as<int64_t>(from));
    case kF64:
      return read_as<double>(from);
    default:
      return std::nan("");
  }
}

}  // namespace

// What has no size is not read: files of /proc count as regular ones, and some of them wait for
// what is yet to come.
bool is_gguf(const std::filesystem::path& path) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(path, failed)) return false;
  if (std::filesystem::file_size(path, failed) < kMagic.size() || failed) return false;
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::string_view(magic, sizeof magic) == kMagic;
}

GgufFile::GgufFile(const std::filesystem::path& path)
    : origin_(path.string()), file_(std::make_shared<MappedFile>(path)) {
  Cursor cursor(file_->bytes(), origin_);
  const auto magic = cursor.bytes(kMagic.size());
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) {
    throw data_error(origin_ + " is not a GGUF file");
  }
  const auto version = cursor.take<uint32_t>();
  if (version != 2 && version != 3) {
    const bool big_end = version > 0 && (version & 0xffff) == 0;
    throw data_error(origin_ +
                     (big_end ? ": its numbers are stored big end first"
                              : ": GGUF version " + std::to_string(version)) +
                     ", which is not supported; versions 2 and 3, little end first, are");
  }
  const auto tensors = cursor.take<uint64_t>(), keys = cursor.take<uint64_t>();
  if (tensors > kMostTensors || keys > kMostKeys) {
    throw data_error(origin_ + ": " + std::to_string(tensors) + " tensors and " +
                     std::to_string(keys) + " keys are more than the limits of " +
                     std::to_string(kMostTensors) + " and " + std::to_string(kMostKeys));
  }
  values_ = read_metadata(cursor, keys, origin_);
  if (has("split.count") && size("split.count", 0, kMostTensors) > 1) {
    throw data_error(origin_ +
                     " is one of several parts; join them first: llama-gguf-split --merge");
  }
  int64_t alignment = kDefaultAlignment;
  if (has("general.alignment")) alignment = size("general.alignment", 8, kLargestAlignment);
  if ((alignment & (alignment - 1)) != 0) throw wrong("general.alignment", "a power of two");
  tensors_ = read_tensors(cursor, tensors, static_cast<uint64_t>(alignment), origin_);
}

const GgufValue& GgufFile::at(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    throw data_error(origin_ + ": key " + in_quotes(key) + " is missing");
  }
  return found->second;
}

Error GgufFile::wrong(std::string_view key, const std::string& expected) const {
  return data_error(origin_ + ": key " + in_quotes(key) + ", expected " + expected);
}

bool GgufFile::is_array(std::string_view key) const { return at(key).array; }

double GgufFile::number(std::string_view key) const {
  const GgufValue& value = at(key);
  const double number = value.array ? std::nan("") : number_at(value, 0);
  if (!std::isfinite(number)) throw wrong(key, "a number");
  return number;
}

int64_t GgufFile::size(std::string_view key, int64_t least, int64_t most) const {
  const double found = number(key);
  if (found != std::floor(found) || found < static_cast<double>(least) ||
      found > static_cast<double>(most)) {
    throw wrong(key,
                "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return static_cast<int64_t>(found);
}

bool GgufFile::boolean(std::string_view key) const {
  const GgufValue& value = at(key);
  if (value.array || value.type != kBool) throw wrong(key, "true or false");
  return value.bytes[0] != std::byte{0};
}

std::string GgufFile::text(std::string_view key) const {
  const GgufValue& value = at(key);
  if (value.array || value.type != kText) throw wrong(key, "a text");
  const std::string_view found = Cursor(value.bytes, origin_).text();
  if (!utf8_is_valid(found)) throw wrong(key, "valid UTF-8");
  return std::string(found);
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
  const GgufValue& value = at(key);
  if (!value.array || value.type != kText) throw wrong(key, "a list of texts");
  std::vector<std::string_view> list;
  list.reserve(value.count);  // each takes eight bytes of the file at least
  Cursor cursor(value.bytes, origin_);
  for (uint64_t i = 0; i < value.count; ++i) list.push_back(cursor.text());
  return list;
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
  const GgufValue& value = at(key);
  if (!value.array || value.type == kText || value.type == kBool) {
    throw wrong(key, "a list of numbers");
  }
  std::vector<double> list;
  list.reserve(value.count);
  for (uint64_t i = 0; i < value.count; ++i) list.push_back(number_at(value, i));
  return list;
}

}  // namespace dmc
