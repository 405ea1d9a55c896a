#include "text/corpus.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/join.h"
#include "base/rng.h"
#include "base/utf8.h"

namespace dmc::text {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kHeldOutOneIn = 50;
constexpr uintmax_t kLargestDocument = 8 << 20;
constexpr size_t kLargestSingleFile = size_t{4} << 30;

uint64_t fnv1a64(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

bool is_text_name(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".py" || extension == ".txt" || extension == ".md";
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
    } else if (it->is_regular_file(ignored) && is_text_name(it->path()) &&
               it->file_size(ignored) <= kLargestDocument) {
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

std::string list_of(const std::vector<fs::path>& paths) {
  return join(paths, ", ", [](const fs::path& path) { return path.string(); });
}

fs::path from_environment(const char* variable, const char* built_in) {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : built_in;
}

}  // namespace

Corpus::Corpus(std::vector<fs::path> sources, Split split) {
  for (const fs::path& source : sources) {
    if (!fs::exists(source)) throw data_error(source.string() + ": no such file or folder");
  }
  if (sources.size() == 1 && fs::is_regular_file(sources[0])) {
    const std::string content = read_text_file(sources[0], kLargestSingleFile);
    if (!is_text(content)) throw data_error(sources[0].string() + ": is not UTF-8 text");
    const uint64_t cut = character_start(content, content.size() - content.size() / kHeldOutOneIn);
    const bool train = split == Split::kTrain;
    documents_.push_back({0, sources[0], train ? 0 : cut, train ? cut : content.size() - cut});
  } else {
    std::set<uint64_t> seen;
    for (const fs::path& source : sources) {
      const auto files =
          fs::is_directory(source) ? files_under(source) : std::vector<fs::path>{source};
      for (const fs::path& file : files) {
        const std::string content = read_text_file(file, kLargestDocument);
        const uint64_t hash = fnv1a64(content);
        const bool held_out = hash % kHeldOutOneIn == 0;
        if (held_out != (split == Split::kHeldOut) || content.empty() || !is_text(content) ||
            !seen.insert(hash).second) {
          continue;
        }
        documents_.push_back({hash, file, 0, content.size()});
      }
    }
    std::ranges::sort(documents_, {}, &Document::hash);
  }
  for (const Document& document : documents_) bytes_ += document.length;
  if (bytes_ == 0) {
    throw data_error(list_of(sources) + ": no " +
                     (split == Split::kTrain ? "training" : "held-out") +
                     " text found; expected .py, .txt or .md files in UTF-8");
  }
}

std::string Corpus::text(size_t index) const {
  const Document& document = documents_.at(index);
  std::ifstream in(document.path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(document.offset));
  std::string content(document.length, '\0');
  in.read(content.data(), static_cast<std::streamsize>(document.length));
  if (static_cast<uint64_t>(in.gcount()) != document.length) {
    throw data_error(document.path.string() + ": changed or vanished while it was in use");
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

EvalWindows eval_windows(const Corpus& corpus, const Tokenizer& tokenizer, int32_t separator,
                         int64_t length, int64_t windows) {
  DMC_CHECK(length >= 2 && windows >= 1);
  EvalWindows result;
  std::vector<int32_t> window;
  for (size_t i = 0; i < corpus.size(); ++i) {
    std::vector<int32_t> tokens = tokenizer.encode(corpus.text(i));
    tokens.push_back(separator);
    for (int32_t token : tokens) {
      if (window.empty()) result.bytes.push_back(0);
      // The first token of a window is given, not predicted; a separator stands for no text.
      if (!window.empty() && token != separator) {
        result.bytes.back() += static_cast<int64_t>(tokenizer.token_bytes(token).size());
      }
      window.push_back(token);
      if (static_cast<int64_t>(window.size()) < length) continue;
      result.tokens.push_back(std::move(window));
      window.clear();
      if (static_cast<int64_t>(result.tokens.size()) == windows) return result;
    }
  }
  result.bytes.resize(result.tokens.size());  // drops the count of an unfinished window
  if (result.tokens.empty()) {
    throw data_error("the held-out text is shorter than one window of " + std::to_string(length) +
                     " tokens; give more --data or a smaller --length");
  }
  return result;
}

}  // namespace dmc::text
