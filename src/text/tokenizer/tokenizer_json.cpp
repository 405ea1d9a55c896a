// tokenizer.json of the Hugging Face `tokenizers` library.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/quoted.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/json_fields.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/token_decoder.h"
#include "text/tokenizer/unigram.h"
#include "text/tokenizer/word_piece.h"

namespace dmc::text {
namespace {

using nlohmann::json;

class Reader {
 public:
  Reader(const json& root, Pipeline* pipeline)
      : root_(root), origin_(pipeline->origin), out_(*pipeline) {}

  void read() {
    if (present("normalizer")) out_.normalizers = read_normalizers(root_["normalizer"], origin_);
    Splitters splitters;
    if (present("pre_tokenizer")) splitters = read_splitters(root_["pre_tokenizer"], origin_);
    out_.splitters = std::move(splitters.steps);
    read_model(root_.at("model"), splitters.bytes);
    if (present("added_tokens")) read_added_tokens(root_["added_tokens"]);
    read_token_bytes();
    if (present("post_processor")) read_post_processor(root_["post_processor"]);
  }

 private:
  using MakeModel = std::unique_ptr<PieceModel> (Reader::*)(const json&, bool);
  struct ModelKind {
    const char* type;
    MakeModel make;
  };
  static const ModelKind kModels[];

  bool present(const char* key) const { return root_.contains(key) && !root_[key].is_null(); }

  int32_t read_id(const json& id) const { return read_token_id(id, origin_); }

  void read_model(const json& model, bool bytes);

  void read_vocabulary(const json& vocab) {
    if (!vocab.is_object()) throw data_error(origin_ + ": model.vocab is not an object");
    for (const auto& [token, id] : vocab.items()) printed_.put(read_id(id), token);
  }

  std::unique_ptr<PieceModel> make_bpe(const json& model, bool bytes) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (model.contains(key) && !model[key].is_null() && model[key] != "") {
        throw data_error(origin_ + ": model." + key + " is " + printable(model[key].dump()) +
                         ", which is not supported");
      }
    }
    read_vocabulary(model.at("vocab"));
    BpeOptions options{.bytes = bytes,
                       .ignore_merges = model.value("ignore_merges", false),
                       .byte_fallback = model.value("byte_fallback", false),
                       .fuse_unknown = model.value("fuse_unk", false)};
    const json unknown = model.value("unk_token", json());
    if (!unknown.is_null()) options.unknown = printed_.find(unknown.get<std::string>());
    MergeTable merges = read_merges(model.at("merges"));
    return std::make_unique<BpeModel>(bytes ? byte_vocabulary() : printed_, std::move(merges),
                                      options);
  }

  // A token that is not written in the byte alphabet keeps its spelling: no merge leads to it.
  Vocabulary byte_vocabulary() const {
    Vocabulary vocabulary;
    for (int32_t id = 0; id < printed_.size(); ++id) {
      const std::string& token = printed_.text(id);
      vocabulary.put(id, bytes_of_token(token).value_or(token));
    }
    int missing = 0;
    for (int b = 0; b < 256; ++b) missing += !vocabulary.find(std::string(1, static_cast<char>(b)));
    if (missing > 64) {  // some that UTF-8 never uses may be left out
      throw data_error(origin_ + ": the vocabulary lacks tokens for most bytes; is it byte-level?");
    }
    return vocabulary;
  }

  MergeTable read_merges(const json& list) const {
    const auto id_of = [&](const std::string& token) {
      const auto id = printed_.find(token);
      if (!id) {
        throw data_error(origin_ + ": a merge names " + in_quotes(token) +
                         ", which is not in the vocabulary");
      }
      return *id;
    };
    MergeTable merges;
    int32_t rank = 0;
    for (const json& entry : list) {
      const auto [left, right] = read_pair(entry);
      merges.add(id_of(left), id_of(right), {rank++, id_of(left + right)});
    }
    return merges;
  }

  // ["a", "b"], or "a b" in older files.
  std::pair<std::string, std::string> read_pair(const json& entry) const {
    if (entry.is_array() && entry.size() == 2) {
      return {entry[0].get<std::string>(), entry[1].get<std::string>()};
    }
    const auto text = entry.get<std::string>();
    const size_t space = text.find(' ');
    if (space == std::string::npos) {
      throw data_error(origin_ + ": merge " + in_quotes(text) + " has no pair");
    }
    return {text.substr(0, space), text.substr(space + 1)};
  }

  std::unique_ptr<PieceModel> make_word_piece(const json& model, bool bytes) {
    constexpr size_t kLongestWord = 1000;
    if (bytes) throw data_error(origin_ + ": ByteLevel with a WordPiece model is not supported");
    read_vocabulary(model.at("vocab"));
    const auto unknown = model.value("unk_token", std::string("[UNK]"));
    const auto id = printed_.find(unknown);
    if (!id)
      throw data_error(origin_ + ": unk_token " + in_quotes(unknown) + " is not in the vocabulary");
    const auto longest = model.value("max_input_chars_per_word", size_t{100});
    if (longest > kLongestWord) {
      throw data_error(origin_ + ": max_input_chars_per_word is " + std::to_string(longest) +
                       ", more than " + std::to_string(kLongestWord));
    }
    const auto prefix = model.value("continuing_subword_prefix", std::string("##"));
    return std::make_unique<WordPieceModel>(printed_, *id, prefix, longest);
  }

  // The vocabulary lists [token, log probability]; a token's place is its id.
  std::unique_ptr<PieceModel> make_unigram(const json& model, bool bytes) {
    if (bytes) throw data_error(origin_ + ": ByteLevel with a Unigram model is not supported");
    using Model = UnigramModel<double>;
    std::vector<Model::Token> tokens;
    for (const json& entry : model.at("vocab")) {
      const int32_t id = read_id(tokens.size());
      const auto& text = entry.at(0).get_ref<const std::string&>();
      if (text.size() > Model::kLongestToken) {
        throw data_error(origin_ + ": a token has " + std::to_string(text.size()) +
                         " bytes, more than " + std::to_string(Model::kLongestToken));
      }
      printed_.put(id, text);
      tokens.push_back({text, id, entry.at(1).get<double>()});
    }
    const json unknown = model.value("unk_id", json());
    if (unknown.is_null() || read_id(unknown) >= printed_.size()) {
      throw data_error(origin_ + ": model.unk_id is " + printable(unknown.dump()) +
                       ", expected the id of a token");
    }
    const bool fallback = model.value("byte_fallback", false);
    return std::make_unique<Model>(tokens, read_id(unknown),
                                   fallback ? byte_tokens() : std::vector<int32_t>());
  }

  std::vector<int32_t> byte_tokens() const {
    std::vector<int32_t> tokens(256, -1);
    for (int32_t id = 0; id < printed_.size(); ++id) {
      const auto byte = parse_byte_token(printed_.text(id));
      if (byte) tokens[static_cast<unsigned char>(*byte)] = id;
    }
    if (std::ranges::count(tokens, -1) > 0) {
      throw data_error(origin_ + ": byte_fallback is set, but tokens <0x00> to <0xFF> are missing");
    }
    return tokens;
  }

  void read_added_tokens(const json& list) {
    for (const json& entry : list) {
      add_token(read_added_token(entry, read_id(entry.at("id"))), &out_);
    }
  }

  void read_token_bytes() {
    const json spec = root_.value("decoder", json());
    const TokenDecoder decoder = read_token_decoder(spec, origin_);
    out_.strip_first_space = decoder.strip_first_space;
    for (const AddedToken& token : out_.added) printed_.put(token.id, token.text);
    for (int32_t id = 0; id < printed_.size(); ++id) {
      const std::string& token = printed_.text(id);
      out_.bytes.push_back(token.empty() ? "" : decoder(token, out_.loading()));
    }
  }

  void read_post_processor(const json& spec) {
    const auto type = spec.at("type").get<std::string>();
    if (type == "Sequence") {
      for (const json& part : spec.at("processors")) read_post_processor(part);
    } else if (type == "TemplateProcessing") {
      read_template(spec);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      out_.prefix = {read_id(spec.at("cls").at(1))};
      out_.suffix = {read_id(spec.at("sep").at(1))};
    } else if (type != "ByteLevel") {  // which only moves offsets
      throw data_error(origin_ + ": post_processor " + in_quotes(type) + " is not supported");
    }
  }

  void read_template(const json& spec) {
    std::vector<int32_t>* ids = &out_.prefix;
    for (const json& part : spec.at("single")) {
      if (part.contains("Sequence")) {
        ids = &out_.suffix;
        continue;
      }
      const auto name = part.at("SpecialToken").at("id").get<std::string>();
      for (const json& id : spec.at("special_tokens").at(name).at("ids")) {
        ids->push_back(read_id(id));
      }
    }
  }

  const json& root_;
  const std::string& origin_;
  Pipeline& out_;
  Vocabulary printed_;  // tokens as the file writes them
};

const Reader::ModelKind Reader::kModels[] = {
    {"BPE", &Reader::make_bpe},
    {"WordPiece", &Reader::make_word_piece},
    {"Unigram", &Reader::make_unigram},
};

void Reader::read_model(const json& model, bool bytes) {
  // Old files leave the type out where it is BPE.
  const std::string type = model.value("type", std::string("BPE"));
  for (const ModelKind& kind : kModels) {
    if (type == kind.type) {
      out_.model = (this->*kind.make)(model, bytes);
      return;
    }
  }
  throw data_error(origin_ + ": model type " + in_quotes(type) +
                   " is not supported; BPE, WordPiece and Unigram are");
}

}  // namespace

Pipeline read_tokenizer_json(const json& root, const std::string& origin) {
  Pipeline pipeline;
  pipeline.origin = origin;
  try {
    Reader(root, &pipeline).read();
  } catch (const json::exception& error) {
    throw data_error(origin + ": a key is missing or has the wrong type (" +
                     printable(error.what(), 200) + ")");
  }
  return pipeline;
}

Pipeline read_tokenizer_json(const std::filesystem::path& file) {
  constexpr size_t kLargestFile = size_t{256} << 20;
  return read_tokenizer_json(parse_json(read_text_file(file, kLargestFile), file.string()),
                             file.string());
}

}  // namespace dmc::text
