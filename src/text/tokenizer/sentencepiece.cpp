// tokenizer.model of sentencepiece: a protocol buffer with pieces, scores and how to normalize.
#include "text/tokenizer/tokenizer_model.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/quoted.h"
#include "base/utf8.h"
#include "text/strings.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/char_map.h"
#include "text/tokenizer/protobuf.h"
#include "text/tokenizer/unigram.h"

namespace dmc::text {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, how pieces write a space

enum class PieceType : uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct ScoredPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

enum class Algorithm : uint64_t { kUnigram = 1, kBpe = 2 };

struct Model {  // with the format's defaults; the numbers are fields of sentencepiece_model.proto
  std::vector<ScoredPiece> pieces;            // 1
  Algorithm algorithm = Algorithm::kUnigram;  // trainer_spec 2, model_type 3
  bool byte_fallback = false;                 // 35
  uint64_t bos_id = 1, eos_id = 2;            // 41, 42; all bits set: none
  std::string char_map;                       // normalizer_spec 3, precompiled_charsmap 2
  bool add_dummy_prefix = true;               // 3
  bool remove_extra_whitespaces = true;       // 4
  bool escape_whitespaces = true;             // 5
};

ScoredPiece read_piece(std::string_view message, const std::string& origin) {
  constexpr size_t kLongestPiece = UnigramModel<float>::kLongestToken;
  ScoredPiece piece;
  for (ProtobufReader reader(message, origin); reader.next();) {
    if (reader.field() == 1) piece.text = reader.bytes();
    if (reader.field() == 2) piece.score = reader.real();
    if (reader.field() == 3) piece.type = static_cast<PieceType>(reader.integer());
  }
  if (piece.text.empty() || piece.text.size() > kLongestPiece || !utf8_is_valid(piece.text)) {
    throw data_error(origin + ": a piece is empty, longer than " + std::to_string(kLongestPiece) +
                     " bytes or not UTF-8");
  }
  if (!std::isfinite(piece.score)) {
    throw data_error(origin + ": the score of piece " + in_quotes(piece.text) + " is not a number");
  }
  return piece;
}

void read_trainer_spec(std::string_view message, const std::string& origin, Model* model) {
  for (ProtobufReader reader(message, origin); reader.next();) {
    if (reader.field() == 3) model->algorithm = static_cast<Algorithm>(reader.integer());
    if (reader.field() == 35) model->byte_fallback = reader.integer() != 0;
    if (reader.field() == 41) model->bos_id = reader.integer();
    if (reader.field() == 42) model->eos_id = reader.integer();
    if (reader.field() == 24 && reader.integer() != 0) {
      throw data_error(origin + ": treat_whitespace_as_suffix is not supported");
    }
  }
}

void read_normalizer_spec(std::string_view message, const std::string& origin, Model* model) {
  for (ProtobufReader reader(message, origin); reader.next();) {
    if (reader.field() == 2) model->char_map = reader.bytes();
    if (reader.field() == 3) model->add_dummy_prefix = reader.integer() != 0;
    if (reader.field() == 4) model->remove_extra_whitespaces = reader.integer() != 0;
    if (reader.field() == 5) model->escape_whitespaces = reader.integer() != 0;
  }
}

Model read_model(std::string_view message, const std::string& origin) {
  Model model;
  for (ProtobufReader reader(message, origin); reader.next();) {
    if (reader.field() == 1) model.pieces.push_back(read_piece(reader.bytes(), origin));
    if (reader.field() == 2) read_trainer_spec(reader.bytes(), origin, &model);
    if (reader.field() == 3) read_normalizer_spec(reader.bytes(), origin, &model);
    if (model.pieces.size() > Vocabulary::kMostTokens) {
      throw data_error(origin + " has more than " + std::to_string(Vocabulary::kMostTokens) +
                       " pieces");
    }
  }
  if (model.pieces.empty()) throw data_error(origin + " is not a sentencepiece model: no pieces");
  return model;
}

// What sentencepiece does to a text before it looks for pieces.
class Normalization {
 public:
  Normalization(const Model& model, bool space_in_every_section, const std::string& origin)
      : map_(model.char_map, origin),
        dummy_prefix_(model.add_dummy_prefix),
        remove_extra_(model.remove_extra_whitespaces),
        space_(model.escape_whitespaces ? kSpace : " "),
        every_section_(space_in_every_section) {}

  void operator()(std::string* text, bool at_start, Work& work) const {
    const std::string spaced = mapped(*text, work);
    const bool prefix = dummy_prefix_ && (at_start || every_section_) && !spaced.empty();
    *text = (prefix ? " " : "") + spaced;
    replace_all(" ", space_, work, text);
    while (remove_extra_ && text->ends_with(space_)) text->resize(text->size() - space_.size());
  }

 private:
  std::string mapped(std::string_view text, Work& work) const {
    std::string out;
    bool after_space = remove_extra_;  // then spaces at the start go, too
    while (!text.empty()) {
      CharMap::Prefix prefix = map_.longest_prefix(text);
      text.remove_prefix(prefix.size);
      std::string_view to = prefix.replacement;
      work.charge(to.size());
      while (after_space && to.starts_with(' ')) to.remove_prefix(1);
      out += to;
      if (!to.empty()) after_space = remove_extra_ && to.ends_with(' ');
    }
    return out;
  }

  CharMap map_;
  bool dummy_prefix_, remove_extra_;
  std::string space_;
  bool every_section_;
};

Vocabulary vocabulary_of(const Model& model) {
  Vocabulary vocabulary;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    vocabulary.put(static_cast<int32_t>(id), model.pieces[id].text);
  }
  return vocabulary;
}

const ScoredPiece& piece_of(const Model& model, int32_t id) {
  return model.pieces[static_cast<size_t>(id)];
}

std::optional<int32_t> unknown_of(const Model& model) {
  const auto found = std::ranges::find(model.pieces, PieceType::kUnknown, &ScoredPiece::type);
  if (found == model.pieces.end()) return std::nullopt;
  return static_cast<int32_t>(found - model.pieces.begin());
}

std::unique_ptr<PieceModel> make_bpe(const Model& model, const std::string&) {
  std::map<float, int32_t, std::greater<>> rank;  // the best score merges first
  for (const ScoredPiece& piece : model.pieces) rank[piece.score];
  int32_t next = 0;
  for (auto& [score, value] : rank) value = next++;
  Vocabulary vocabulary = vocabulary_of(model);
  const auto is_normal = [&](int32_t id) { return piece_of(model, id).type == PieceType::kNormal; };
  MergeTable merges = merges_of_vocabulary(
      vocabulary, is_normal, [&](int32_t id) { return rank[piece_of(model, id).score]; });
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges),
                                    BpeOptions{.byte_fallback = model.byte_fallback,
                                               .fuse_unknown = true,
                                               .unknown = unknown_of(model)});
}

std::vector<int32_t> byte_tokens(const Model& model, const std::string& origin) {
  if (!model.byte_fallback) return {};
  std::vector<int32_t> tokens(256, -1);
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const auto byte = parse_byte_token(model.pieces[id].text);
    if (byte && model.pieces[id].type == PieceType::kByte) {
      tokens[static_cast<unsigned char>(*byte)] = static_cast<int32_t>(id);
    }
  }
  if (std::ranges::count(tokens, -1) > 0) {
    throw data_error(origin + ": byte_fallback is set, but pieces <0x00> to <0xFF> are missing");
  }
  return tokens;
}

std::unique_ptr<PieceModel> make_unigram(const Model& model, const std::string& origin) {
  const auto unknown = unknown_of(model);
  if (!unknown) throw data_error(origin + ": a unigram model needs an unknown piece");
  std::vector<UnigramModel<float>::Token> tokens;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const ScoredPiece& piece = model.pieces[id];
    if (piece.type != PieceType::kNormal) continue;
    tokens.push_back({piece.text, static_cast<int32_t>(id), piece.score});
  }
  return std::make_unique<UnigramModel<float>>(tokens, *unknown, byte_tokens(model, origin));
}

struct Maker {
  Algorithm algorithm;
  std::unique_ptr<PieceModel> (*make)(const Model&, const std::string& origin);
};
constexpr Maker kMakers[] = {{Algorithm::kBpe, make_bpe}, {Algorithm::kUnigram, make_unigram}};

std::unique_ptr<PieceModel> make_model(const Model& model, const std::string& origin) {
  for (const Maker& maker : kMakers) {
    if (maker.algorithm == model.algorithm) return maker.make(model, origin);
  }
  throw data_error(origin + ": sentencepiece model type " +
                   std::to_string(static_cast<uint64_t>(model.algorithm)) +
                   " is not supported; BPE and unigram are");
}

// Cuts before every space that follows something else.
void cut_into_words(Piece piece, Work&, const PieceSink& sink) {
  for (size_t begin = 0; begin < piece.text.size();) {
    size_t word = begin;
    while (piece.text.substr(word).starts_with(kSpace)) word += kSpace.size();
    const size_t end = std::min(piece.text.find(kSpace, word), piece.text.size());
    sink({piece.text.substr(begin, end - begin), piece.at_start && begin == 0});
    begin = end;
  }
}

// No merge reaches over the border of a word if no piece does: then the ids are the same with
// words taken one by one, and repeated words are encoded once.
std::vector<Splitter> word_splitters(const Model& model) {
  const auto crosses = [](const ScoredPiece& piece) {
    std::string_view text = piece.text;
    while (text.starts_with(kSpace)) text.remove_prefix(kSpace.size());
    return piece.type == PieceType::kNormal && text.find(kSpace) != text.npos;
  };
  const bool has_space = std::ranges::find(model.pieces, kSpace, &ScoredPiece::text) !=
                         model.pieces.end();  // else a run of unknowns could reach over it
  if (model.algorithm != Algorithm::kBpe || !has_space ||
      std::ranges::any_of(model.pieces, crosses)) {
    return {};
  }
  return {cut_into_words};
}

std::string bytes_of(const ScoredPiece& piece) {
  if (piece.type == PieceType::kByte) {
    if (const auto byte = parse_byte_token(piece.text)) return std::string(1, *byte);
  }
  return replace_all(piece.text, kSpace, " ");
}

void add_pieces(const Model& model, Pipeline* pipeline) {
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const ScoredPiece& piece = model.pieces[id];
    pipeline->bytes.push_back(bytes_of(piece));
    AddedToken token{.text = piece.text, .id = static_cast<int32_t>(id)};
    switch (piece.type) {
      case PieceType::kControl:
      case PieceType::kUnknown:
        token.special = true;
        add_token(token, pipeline);
        break;
      case PieceType::kUserDefined:  // is written as it stands in a normalized text
        pipeline->normalized_tokens.add(token.text, token);
        pipeline->added.push_back(token);
        break;
      case PieceType::kNormal:
      case PieceType::kUnused:  // no merge leads to it
      case PieceType::kByte:
        break;
      default:
        throw data_error(pipeline->origin + ": piece type " +
                         std::to_string(static_cast<uint64_t>(piece.type)) + " is not supported");
    }
  }
}

}  // namespace

void read_sentencepiece(std::string_view file, const TokenizerConfig& config, Pipeline* pipeline) {
  const std::string& origin = pipeline->origin;
  const Model model = read_model(file, origin);
  pipeline->normalizers = {Normalization(model, config.legacy.value_or(true), origin)};
  pipeline->splitters = word_splitters(model);
  pipeline->model = make_model(model, origin);
  pipeline->strip_first_space = model.add_dummy_prefix;
  add_pieces(model, pipeline);
  for (const AddedToken& token : config.added) {
    const auto known = static_cast<size_t>(token.id) < model.pieces.size();
    if (!known) add_spelled_token(token, pipeline);
  }
  if (config.add_bos_token.value_or(true) && model.bos_id < model.pieces.size()) {
    pipeline->prefix = {static_cast<int32_t>(model.bos_id)};
  }
  if (config.add_eos_token.value_or(false) && model.eos_id < model.pieces.size()) {
    pipeline->suffix = {static_cast<int32_t>(model.eos_id)};
  }
}

}  // namespace dmc::text
