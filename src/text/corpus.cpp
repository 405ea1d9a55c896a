#include "text/corpus.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/join.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/packed_file.h"
#include "text/strings.h"

namespace dmc::text {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kHeldOutOneIn = 50;
constexpr size_t kFewDocuments = 100;
constexpr double kMostHeldOut = 0.1, kEnoughHeldOut = 128 << 10;  // a share; bytes
constexpr size_t kLargestDocument = 8 << 20;
constexpr size_t kLargestFile = size_t{4} << 30;

uint64_t fnv1a64(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

bool is_text_name(const fs::path& path) {
  const std::string extension = unpacked_name(path).extension().string();
  return extension == ".py" || extension == ".txt" || extension == ".md" || extension == ".jsonl";
}

bool is_text(std::string_view content) {
  return content.find('\0') == std::string_view::npos && utf8_is_valid(content);
}

std::vector<fs::path> files_under(const fs::path& folder) {
  std::vector<fs::path> files;
  const auto options = fs::directory_options::skip_permission_denied;
  for (auto it = fs::recursive_directory_iterator(folder, options); it != fs::end(it); ++it) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;  // a link to nowhere or to itself is not a file
    if (it->is_directory(ignored) && (name == "site-packages" || name == "__pycache__")) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file(ignored) && is_text_name(it->path())) {
      files.push_back(it->path());
    }
  }
  return files;
}

// Where a text may be cut without cutting a character.
uint64_t character_start(std::string_view text, uint64_t position) {
  while (position < text.size() && (text[position] & 0xc0) == 0x80) ++position;
  return position;
}

// How much of `text` the next document takes: all, or up to a line's end.
size_t piece_of(std::string_view text) {
  if (text.size() <= kLargestDocument) return text.size();
  const size_t line = text.substr(0, kLargestDocument).rfind('\n');
  return line == std::string_view::npos ? character_start(text, kLargestDocument) : line + 1;
}

// The share of each document that is held out where they are few.
double held_out_end(uint64_t bytes) {
  return std::clamp(kEnoughHeldOut / static_cast<double>(bytes), 1.0 / kHeldOutOneIn, kMostHeldOut);
}

// The text of a line of a .jsonl file.
std::string record_text(std::string_view line, const std::string& where) {
  const nlohmann::json record = parse_json(line, where);
  if (!record.is_object() || !record.contains("text") || !record["text"].is_string()) {
    throw data_error(where + ": expected an object with a \"text\", as {\"text\": \"Once upon\"}");
  }
  return record["text"].get<std::string>();
}

std::vector<std::string> records_of(const fs::path& path, const std::string& lines) {
  std::vector<std::string> records;
  int64_t number = 0;
  for (std::string_view line : split_lines(lines)) {
    ++number;
    if (stripped(line).empty()) continue;
    records.push_back(record_text(line, path.string() + ", line " + std::to_string(number)));
  }
  return records;
}

std::string list_of(const std::vector<fs::path>& paths) {
  return join(paths, ", ", [](const fs::path& path) { return path.string(); });
}

fs::path from_environment(const char* variable, const char* built_in) {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : built_in;
}

}  // namespace

Corpus::Corpus(const std::vector<fs::path>& sources, Split split) {
  for (const fs::path& source : sources) {
    if (!is_there(source)) throw data_error(source.string() + ": no such file or folder");
    std::error_code ignored;
    if (!fs::is_directory(source, ignored)) {
      add_file(source, /*named=*/true);
      continue;
    }
    for (const fs::path& file : files_under(source)) add_file(file, /*named=*/false);
  }
  std::ranges::stable_sort(documents_, {}, &Document::hash);
  keep(split);
  std::set<size_t> used;
  for (const Document& document : documents_) {
    bytes_ += document.length;
    used.insert(document.file);
  }
  files_used_ = static_cast<int64_t>(used.size());
  if (bytes_ > 0) return;
  const std::string kind = split == Split::kHeldOut ? "held-out " : "";
  throw data_error(list_of(sources) + ": no " + kind +
                   "text found; expected .txt, .md, .py or .jsonl files in UTF-8");
}

void Corpus::add_file(const fs::path& path, bool named) {
  const fs::path name = unpacked_name(path);
  std::string content = read_unpacked(path, kLargestFile);
  if (!is_text(content)) {
    if (named) throw data_error(path.string() + ": is not UTF-8 text");
    ++left_out_;
    return;
  }
  if (name.extension() == ".jsonl") {
    add_records(path, content, named);
    return;
  }
  add_documents(files_.size(), 0, content);
  files_.push_back({path, std::nullopt});
  if (name != path) files_.back().text = std::move(content);
}

// In a folder of other things a .jsonl file may hold anything.
void Corpus::add_records(const fs::path& path, const std::string& lines, bool named) {
  std::vector<std::string> records;
  try {
    records = records_of(path, lines);
  } catch (const Error&) {
    if (named) throw;
    ++left_out_;
    return;
  }
  std::string texts;
  for (const std::string& record : records) {
    add_documents(files_.size(), texts.size(), record);
    texts += record;
  }
  files_.push_back({path, std::move(texts)});
}

void Corpus::add_documents(size_t file, uint64_t offset, std::string_view text) {
  while (!text.empty()) {
    const size_t length = piece_of(text);
    documents_.push_back({fnv1a64(text.substr(0, length)), file, offset, length});
    text.remove_prefix(length);
    offset += length;
  }
}

void Corpus::keep(Split split) {
  if (split == Split::kAll) return;
  const auto [first, last] = std::ranges::unique(documents_, {}, &Document::hash);
  documents_.erase(first, last);
  const bool held_out = split == Split::kHeldOut;
  if (documents_.size() < kFewDocuments) {
    keep_ends(held_out);
  } else {
    std::erase_if(documents_, [held_out](const Document& document) {
      return (document.hash % kHeldOutOneIn == 0) != held_out;
    });
  }
}

// The end of each document, or what is before it.
void Corpus::keep_ends(bool held_out) {
  uint64_t bytes = 0;
  for (const Document& document : documents_) bytes += document.length;
  const double share = held_out_end(bytes);
  for (size_t i = 0; i < documents_.size(); ++i) {
    Document& document = documents_[i];
    const auto end = static_cast<uint64_t>(share * static_cast<double>(document.length));
    const uint64_t cut = character_start(text(i), document.length - end);
    if (held_out) document.offset += cut;
    document.length = held_out ? document.length - cut : cut;
  }
  std::erase_if(documents_, [](const Document& document) { return document.length == 0; });
}

std::string Corpus::text(size_t index) const {
  const Document& document = documents_.at(index);
  const File& file = files_[document.file];
  if (file.text) return file.text->substr(document.offset, document.length);
  std::ifstream in(file.path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(document.offset));
  std::string content(document.length, '\0');
  in.read(content.data(), static_cast<std::streamsize>(document.length));
  if (static_cast<uint64_t>(in.gcount()) != document.length) {
    throw data_error(file.path.string() + ": changed or vanished while it was in use");
  }
  return content;
}

std::vector<fs::path> builtin_corpus(Split split) {
  const fs::path wheel = from_environment("DMC_TORCH_SOURCES", DMC_TORCH_SOURCES);
  if (wheel.empty() || !fs::is_directory(wheel)) {
    throw data_error("the built-in corpus (the torch wheel's Python sources) is not at \"" +
                     wheel.string() + "\"; give --data, or set DMC_TORCH_SOURCES to its folder");
  }
  std::vector<fs::path> sources = {wheel};
  const fs::path stdlib = from_environment("DMC_STDLIB_SOURCES", DMC_STDLIB_SOURCES);
  if (split == Split::kTrain && fs::is_directory(stdlib)) sources.push_back(stdlib);
  return sources;
}

double estimated_tokens(const Corpus& corpus, const Tokenizer& tokenizer) {
  constexpr size_t kSample = 512 << 10;  // bytes
  size_t bytes = 0, tokens = 0;
  for (size_t i = 0; i < corpus.size() && bytes < kSample; ++i) {
    std::string text = corpus.text(i);
    if (text.size() > kSample) text.resize(character_start(text, kSample));
    bytes += text.size();
    tokens += tokenizer.encode(text).size() + 1;
  }
  return static_cast<double>(corpus.bytes()) * static_cast<double>(tokens) /
         static_cast<double>(bytes);
}

TokenFeed::TokenFeed(const Corpus& corpus, const Tokenizer& tokenizer, int32_t separator,
                     uint64_t seed)
    : corpus_(corpus), tokenizer_(tokenizer), separator_(separator), seed_(seed) {
  seek({});
}

void TokenFeed::seek(const Position& position) {
  if (position.document < 0 || position.document >= static_cast<int64_t>(corpus_.size()) ||
      position.offset < 0) {
    throw data_error("document " + std::to_string(position.document) + " of the corpus is to be " +
                     "read on, but it has " + std::to_string(corpus_.size()) +
                     " documents; resume with the data that the run began with");
  }
  position_ = position;
  order_.resize(corpus_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  Rng rng(seed_, static_cast<uint64_t>(position.epoch));
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[rng.below(i)]);
  load_document();
}

void TokenFeed::load_document() {
  tokens_ = tokenizer_.encode(corpus_.text(order_[static_cast<size_t>(position_.document)]));
  tokens_.push_back(separator_);
}

void TokenFeed::read(std::span<int32_t> out) {
  size_t filled = 0;
  while (filled < out.size()) {
    if (position_.offset >= static_cast<int64_t>(tokens_.size())) {
      position_.offset = 0;
      if (++position_.document < static_cast<int64_t>(order_.size())) {
        load_document();
      } else {
        seek({position_.epoch + 1, 0, 0});
      }
    }
    const auto offset = static_cast<size_t>(position_.offset);
    const size_t count = std::min(out.size() - filled, tokens_.size() - offset);
    std::copy_n(tokens_.begin() + position_.offset, count, out.begin() + static_cast<long>(filled));
    filled += count;
    position_.offset += static_cast<int64_t>(count);
  }
}

int64_t EvalWindows::total_tokens() const {
  int64_t total = 0;
  for (const auto& window : tokens) total += static_cast<int64_t>(window.size());
  return total;
}

EvalWindows eval_windows(const Corpus& corpus, const Tokenizer& tokenizer, int32_t separator,
                         int64_t length, int64_t windows,
                         const std::function<void(int64_t)>& progress) {
  DMC_CHECK(length >= 2 && windows >= 0);
  const std::optional<int32_t> unknown = tokenizer.unknown_id();
  EvalWindows result;
  result.files = corpus.files();
  std::vector<int32_t> window;
  int64_t window_bytes = 0, bytes_read = 0;
  const auto finish_window = [&] {
    result.tokens.push_back(std::exchange(window, {}));
    result.bytes.push_back(std::exchange(window_bytes, 0));
  };
  for (size_t i = 0; i < corpus.size(); ++i) {
    const std::string text = corpus.text(i);
    std::vector<int32_t> tokens = tokenizer.encode(text);
    tokens.push_back(separator);
    for (size_t at = 0; at < tokens.size(); ++at) {
      const int32_t token = tokens[at];
      // The first token of a window is given, not predicted.
      if (!window.empty() && token != separator && token != unknown) {
        window_bytes += static_cast<int64_t>(tokenizer.token_bytes(token).size());
      }
      window.push_back(token);
      if (static_cast<int64_t>(window.size()) < length) continue;
      finish_window();
      if (static_cast<int64_t>(result.tokens.size()) != windows) continue;
      result.whole = at + 1 == tokens.size() && i + 1 == corpus.size();
      return result;
    }
    bytes_read += static_cast<int64_t>(text.size());
    if (progress) progress(bytes_read);
  }
  result.whole = windows == 0;
  if (windows == 0 && window.size() >= 2) finish_window();
  if (result.tokens.empty()) {
    throw data_error("the text is shorter than one window of " + std::to_string(length) +
                     " tokens; give more --data or a smaller --length");
  }
  return result;
}

}  // namespace dmc::text
