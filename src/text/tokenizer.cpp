#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/utf8.h"
#include "text/tokenizer/gguf_vocabulary.h"
#include "text/tokenizer/pipeline.h"

namespace dmc::text {
namespace {

// Which file decides when there are several: the first.
struct Format {
  const char* file;
  const char* beside;  // a second file it needs, or null
  Pipeline (*read)(const std::filesystem::path&);
};
constexpr Format kFormats[] = {
    {"tokenizer.json", nullptr, read_tokenizer_json},
    {"tokenizer.model", nullptr, read_tokenizer_model},
    {"vocab.json", "merges.txt", read_vocab_and_merges},
};

Pipeline read_pipeline(const std::filesystem::path& dir) {
  if (is_gguf(dir)) return read_gguf_vocabulary(GgufFile(dir));
  for (const Format& format : kFormats) {
    const bool complete = !format.beside || is_there(dir / format.beside);
    if (complete && is_there(dir / format.file)) return format.read(dir / format.file);
  }
  throw data_error(dir.string() + " has no tokenizer: neither tokenizer.json nor tokenizer.model " +
                   "nor vocab.json with merges.txt");
}

// Turns pieces into ids. Real text repeats its words, so that most pieces reach the model only once
// a call.
class PieceEncoder {
 public:
  PieceEncoder(const PieceModel& model, Work& work, std::vector<int32_t>* ids)
      : model_(model), work_(work), ids_(*ids) {}

  void operator()(std::string_view piece) {
    if (piece.size() > kLongestRemembered) return model_.encode(piece, work_, &ids_);
    auto found = seen_.find(piece);
    if (found == seen_.end()) {
      std::vector<int32_t> ids;
      model_.encode(piece, work_, &ids);
      found = seen_.emplace(piece, std::move(ids)).first;
    }
    ids_.insert(ids_.end(), found->second.begin(), found->second.end());
  }

 private:
  static constexpr size_t kLongestRemembered = 32;
  const PieceModel& model_;
  Work& work_;
  std::vector<int32_t>& ids_;
  StringMap<std::vector<int32_t>> seen_;
};

// One call of encode: cuts added tokens out and sends the text between them down the pipeline.
class Encoding {
 public:
  Encoding(const Pipeline& pipeline, bool parse_special, std::span<const ByteRange> untrusted,
           size_t text_bytes, std::vector<int32_t>* ids)
      : pipeline_(pipeline),
        work_(pipeline.origin, text_bytes),
        parse_special_(parse_special),
        untrusted_(untrusted),
        ids_(*ids),
        encode_(*pipeline.model, work_, ids) {}

  void run(std::string_view text) {
    const auto accept = [&](const AddedTokenFinder::Match& match) {
      return !match.token->special || may_be_special(match.begin, match.end);
    };
    cut(pipeline_.raw_tokens, accept, {text, true}, [&](Piece section) {
      const auto begin = static_cast<size_t>(section.text.data() - text.data());
      encode_section(section, may_be_special(begin, begin + section.text.size()));
    });
  }

 private:
  bool may_be_special(size_t begin, size_t end) const {
    const auto touches = [&](const ByteRange& range) {
      return range.begin < end && begin < range.end;
    };
    // The ranges ascend: the first that ends after `begin` decides.
    const auto range = std::ranges::partition_point(
        untrusted_, [&](const ByteRange& r) { return r.end <= begin; });
    return parse_special_ && (range == untrusted_.end() || !touches(*range));
  }

  // Calls between(piece) for the text between tokens, and adds the tokens' ids.
  void cut(const AddedTokenFinder& finder, const AddedTokenFinder::Accept& accept, Piece piece,
           const PieceSink& between) {
    size_t done = 0;
    const auto emit = [&](size_t end) {
      if (end > done) between({piece.text.substr(done, end - done), piece.at_start && done == 0});
    };
    for (const auto& match : finder.find(piece.text, work_, accept)) {
      emit(match.begin);
      ids_.push_back(match.token->id);
      done = match.end;
    }
    emit(piece.text.size());
  }

  // Normalizing moves bytes about, so here special tokens count in the whole section or nowhere.
  void encode_section(Piece section, bool special) {
    std::string text(section.text);
    apply_normalizers(pipeline_.normalizers, section.at_start, work_, &text);
    const auto accept = [special](const auto& match) { return special || !match.token->special; };
    cut(pipeline_.normalized_tokens, accept, {text, section.at_start}, [&](Piece part) {
      split(pipeline_.splitters, part, work_, [&](Piece piece) { encode_(piece.text); });
    });
  }

  const Pipeline& pipeline_;
  Work work_;
  const bool parse_special_;
  const std::span<const ByteRange> untrusted_;
  std::vector<int32_t>& ids_;
  PieceEncoder encode_;
};

}  // namespace

Tokenizer::Tokenizer(const std::filesystem::path& model, int64_t ids_of_model)
    : pipeline_(std::make_unique<Pipeline>(read_pipeline(model))) {
  int64_t largest = vocab_size() - 1;
  for (const auto* ids : {&pipeline_->prefix, &pipeline_->suffix}) {
    for (int32_t id : *ids) largest = std::max<int64_t>(largest, id);
  }
  if (largest < ids_of_model) return;
  throw data_error(pipeline_->origin + ": has token ids up to " + std::to_string(largest) +
                   ", the model has embeddings for 0 to " + std::to_string(ids_of_model - 1) +
                   "; take the tokenizer that belongs to the model");
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  const std::string repaired = utf8_repaired(text);
  std::vector<int32_t> ids;
  Encoding(*pipeline_, parse_special, {}, repaired.size(), &ids).run(repaired);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_marked(std::string_view text,
                                              std::span<const ByteRange> untrusted) const {
  DMC_CHECK(utf8_is_valid(text));
  std::vector<int32_t> ids;
  Encoding(*pipeline_, /*parse_special=*/true, untrusted, text.size(), &ids).run(text);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<int32_t> ids = pipeline_->prefix;
  const std::vector<int32_t> inside = encode(text, /*parse_special=*/true);
  ids.insert(ids.end(), inside.begin(), inside.end());
  ids.insert(ids.end(), pipeline_->suffix.begin(), pipeline_->suffix.end());
  return ids;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  return pipeline_->bytes[static_cast<size_t>(id)];
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (int32_t id : ids) bytes += token_bytes(id);
  if (strips_first_space() && bytes.starts_with(' ')) bytes.erase(0, 1);
  return utf8_repaired(bytes);
}

bool Tokenizer::strips_first_space() const { return pipeline_->strip_first_space; }

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(pipeline_->bytes.size()); }

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  const auto found = std::ranges::find(pipeline_->added, token, &AddedToken::text);
  if (found == pipeline_->added.end()) return std::nullopt;
  return found->id;
}

bool Tokenizer::is_special(int32_t id) const {
  return std::ranges::any_of(
      pipeline_->added, [id](const AddedToken& token) { return token.special && token.id == id; });
}

std::optional<int32_t> Tokenizer::unknown_id() const { return pipeline_->model->unknown(); }

std::string StreamDecoder::push(int32_t id) {
  pending_ += tokenizer_.token_bytes(id);
  if (strip_space_ && !pending_.empty()) {
    if (pending_[0] == ' ') pending_.erase(0, 1);
    strip_space_ = false;
  }
  // Only the last three bytes can belong to an unfinished character.
  size_t keep = 0;
  for (size_t n = 1; n <= std::min<size_t>(3, pending_.size()); ++n) {
    if (utf8_is_unfinished(std::string_view(pending_).substr(pending_.size() - n))) keep = n;
  }
  const std::string ready = pending_.substr(0, pending_.size() - keep);
  pending_.erase(0, ready.size());
  return utf8_repaired(ready);
}

std::string StreamDecoder::finish() {
  const std::string rest = utf8_repaired(pending_);
  pending_.clear();
  return rest;
}

}  // namespace dmc::text
