#include "io/tokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "io/json.h"
#include "io/regex.h"
#include "io/safetensors.h"
#include "io/utf8.h"

namespace dmc::io {
namespace {

using nlohmann::json;

constexpr uint64_t kMostTokens = uint64_t{1} << 22;

// The split pattern of GPT-2, which the ByteLevel pre-tokenizer applies with use_regex.
constexpr auto kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// tokenizer.json writes the bytes of a token as printable characters: printable Latin-1 stands for
// itself, the other bytes for U+0100 onwards, in order.
struct ByteAlphabet {
  std::array<char32_t, 256> character{};
  std::unordered_map<char32_t, char> byte;

  ByteAlphabet() {
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool itself = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xff && b != 0xad);
      character[b] = itself ? b : next++;
      byte[character[b]] = static_cast<char>(b);
    }
  }
};

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

char32_t decode_character(std::string_view sequence) {
  const auto at = [&](size_t i) { return static_cast<char32_t>(sequence[i] & 0x3f); };
  const auto first = static_cast<unsigned char>(sequence[0]);
  switch (sequence.size()) {
    case 1:
      return first;
    case 2:
      return (first & 0x1fu) << 6 | at(1);
    case 3:
      return (first & 0x0fu) << 12 | at(1) << 6 | at(2);
    default:
      return (first & 0x07u) << 18 | at(1) << 12 | at(2) << 6 | at(3);
  }
}

// The bytes that a vocabulary entry of a byte-level model stands for.
std::string token_to_bytes(std::string_view token, const std::string& origin) {
  std::string bytes;
  while (!token.empty()) {
    const size_t n = utf8_sequence_length(token);
    const auto found = byte_alphabet().byte.find(n == 0 ? 0 : decode_character(token.substr(0, n)));
    if (found == byte_alphabet().byte.end()) {
      throw data_error(origin + ": the vocabulary is not byte-level (\"" + std::string(token) +
                       "\")");
    }
    bytes += found->second;
    token.remove_prefix(n);
  }
  return bytes;
}

struct Merge {
  int32_t rank, result;
};

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

using MergeTable = std::unordered_map<uint64_t, Merge>;
using TokenIds = std::unordered_map<std::string, int32_t>;  // by the tokens' bytes

// Byte-pair merging of one piece in O(n log n): symbols form a linked list, candidate pairs a heap
// ordered by (rank, position). A candidate whose symbols have changed since is skipped.
void merge_piece(std::vector<int32_t>& symbols, const MergeTable& merges) {
  struct Candidate {
    int32_t rank, left;
    uint64_t key;
    int32_t result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto n = static_cast<int32_t>(symbols.size());
  std::vector<int32_t> next(symbols.size()), previous(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  constexpr int32_t kGone = -1;
  const auto symbol = [&](int32_t i) -> int32_t& { return symbols[static_cast<size_t>(i)]; };
  const auto push = [&](int32_t left) {
    const int32_t right = left < 0 ? n : next[static_cast<size_t>(left)];
    if (right >= n) return;
    const uint64_t key = pair_key(symbol(left), symbol(right));
    const auto found = merges.find(key);
    if (found != merges.end()) heap.push({found->second.rank, left, key, found->second.result});
  };
  for (int32_t i = 0; i < n; ++i) {
    next[static_cast<size_t>(i)] = i + 1;
    previous[static_cast<size_t>(i)] = i - 1;
  }
  for (int32_t i = 0; i + 1 < n; ++i) push(i);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    if (symbol(best.left) == kGone) continue;
    const int32_t right = next[static_cast<size_t>(best.left)];
    if (right >= n || pair_key(symbol(best.left), symbol(right)) != best.key) continue;
    symbol(best.left) = best.result;
    symbol(right) = kGone;
    const int32_t after = next[static_cast<size_t>(right)];
    next[static_cast<size_t>(best.left)] = after;
    if (after < n) previous[static_cast<size_t>(after)] = best.left;
    push(best.left);
    push(previous[static_cast<size_t>(best.left)]);
  }
  std::erase(symbols, kGone);
}

// Merges pieces and appends their tokens. Real text repeats its words, so most pieces are merged
// only once a call.
class PieceEncoder {
 public:
  // A piece that is one of `whole` becomes that token without merging.
  PieceEncoder(const std::array<int32_t, 256>& byte_token, const MergeTable& merges,
               const TokenIds& whole, std::vector<int32_t>* out)
      : byte_token_(byte_token), merges_(merges), whole_(whole), out_(*out) {}

  void operator()(std::string_view piece) {
    if (piece.size() > kLongestRemembered) {
      append(merged(piece));
      return;
    }
    const auto found = seen_.find(piece);
    append(found != seen_.end() ? found->second
                                : seen_.emplace(piece, merged(piece)).first->second);
  }

 private:
  static constexpr size_t kLongestRemembered = 32;

  std::vector<int32_t> merged(std::string_view piece) const {
    if (!whole_.empty()) {
      if (const auto found = whole_.find(std::string(piece)); found != whole_.end()) {
        return {found->second};
      }
    }
    std::vector<int32_t> symbols;
    for (char c : piece) {
      const int32_t token = byte_token_[static_cast<unsigned char>(c)];
      if (token >= 0)
        symbols.push_back(token);  // as Hugging Face: a byte without a token is dropped
    }
    merge_piece(symbols, merges_);
    return symbols;
  }
  void append(const std::vector<int32_t>& ids) { out_.insert(out_.end(), ids.begin(), ids.end()); }

  const std::array<int32_t, 256>& byte_token_;
  const MergeTable& merges_;
  const TokenIds& whole_;
  std::vector<int32_t>& out_;
  std::unordered_map<std::string_view, std::vector<int32_t>> seen_;
};

struct SpecialToken {
  std::string text;
  int32_t id;
};

}  // namespace

struct Tokenizer::Impl {
  std::string origin;
  std::vector<std::string> bytes;  // of each token; "" for an id that no token has
  std::array<int32_t, 256> byte_token{};
  MergeTable merges;
  TokenIds whole;  // all tokens if the model says ignore_merges (Llama 3), else empty
  std::vector<SpecialToken> special;
  std::vector<Regex> splits;  // applied one after another, each to the pieces of the one before
  std::unique_ptr<Regex> special_split;

  void read(const json& root);
  void refuse_unsupported(const json& root) const;
  int32_t read_id(const json& id) const;
  void read_vocabulary(const json& vocab);
  void read_merges(const json& list, const json& vocab);
  void read_added_tokens(const json& list);
  void read_pre_tokenizer(const json& pre);
  void put(int32_t id, std::string text);
  void split_and_add(std::string_view text, size_t level, PieceEncoder& add) const;
  void encode_plain(std::string_view text, std::vector<int32_t>* out) const;
};

int32_t Tokenizer::Impl::read_id(const json& id) const {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMostTokens) {
    throw data_error(origin + ": token id " + id.dump() + " is not a whole number from 0 to " +
                     std::to_string(kMostTokens - 1));
  }
  return id.get<int32_t>();
}

void Tokenizer::Impl::put(int32_t id, std::string text) {
  const auto index = static_cast<size_t>(id);
  if (index >= bytes.size()) bytes.resize(index + 1);
  bytes[index] = std::move(text);
}

void Tokenizer::Impl::read_vocabulary(const json& vocab) {
  for (const auto& [token, id] : vocab.items()) put(read_id(id), token_to_bytes(token, origin));
  byte_token.fill(-1);
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i].size() == 1) {
      byte_token[static_cast<unsigned char>(bytes[i][0])] = static_cast<int32_t>(i);
    }
  }
  if (std::ranges::count(byte_token, -1) > 64) {  // some that UTF-8 never uses may be left out
    throw data_error(origin + ": the vocabulary lacks tokens for most bytes; is it byte-level?");
  }
}

void Tokenizer::Impl::read_merges(const json& list, const json& vocab) {
  const auto id_of = [&](const std::string& token) {
    const auto found = vocab.find(token);
    if (found == vocab.end()) {
      throw data_error(origin + ": a merge names \"" + token +
                       "\", which is not in the vocabulary");
    }
    return read_id(*found);
  };
  int32_t rank = 0;
  for (const json& entry : list) {  // ["a", "b"], or "a b" in older files
    std::string left, right;
    if (entry.is_array() && entry.size() == 2) {
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    } else {
      const auto text = entry.get<std::string>();
      const size_t space = text.find(' ');
      if (space == std::string::npos)
        throw data_error(origin + ": merge \"" + text + "\" has no pair");
      left = text.substr(0, space);
      right = text.substr(space + 1);
    }
    merges.try_emplace(pair_key(id_of(left), id_of(right)), Merge{rank++, id_of(left + right)});
  }
}

void Tokenizer::Impl::read_added_tokens(const json& list) {
  std::string pattern;
  for (const json& token : list) {
    special.push_back({token.at("content").get<std::string>(), read_id(token.at("id"))});
    put(special.back().id, special.back().text);
  }
  // Where one special token begins with another, the longer one is meant.
  std::ranges::stable_sort(
      special, [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
  for (const SpecialToken& token : special) {
    pattern += (pattern.empty() ? "" : "|") + escape_regex(token.text);
  }
  if (!pattern.empty()) special_split = std::make_unique<Regex>(pattern, origin);
}

void Tokenizer::Impl::read_pre_tokenizer(const json& pre) {
  const auto type = pre.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const json& part : pre.at("pretokenizers")) read_pre_tokenizer(part);
  } else if (type == "Split" && pre.at("behavior") == "Isolated" && pre.at("invert") == false) {
    splits.emplace_back(pre.at("pattern").at("Regex").get<std::string>(), origin);
  } else if (type == "Digits") {
    splits.emplace_back(pre.at("individual_digits").get<bool>() ? R"(\p{N})" : R"(\p{N}+)", origin);
  } else if (type == "ByteLevel" && !pre.value("add_prefix_space", false)) {
    if (pre.value("use_regex", true)) splits.emplace_back(kGpt2Pattern, origin);
  } else {
    throw data_error(origin + ": pre_tokenizer " + type +
                     " with these settings is not supported; byte-level BPE is");
  }
}

// What would change the ids: refused rather than left out in silence.
void Tokenizer::Impl::refuse_unsupported(const json& root) const {
  const json& model = root.at("model");
  if (model.value("type", "BPE") != "BPE") {
    throw data_error(origin + ": model type " + model.at("type").dump() +
                     " is not supported; BPE is");
  }
  if (root.contains("normalizer") && !root["normalizer"].is_null()) {
    throw data_error(origin + ": a normalizer is not supported");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.contains(key) && !model[key].is_null() && model[key] != "") {
      throw data_error(origin + ": model." + key + " is " + model[key].dump() +
                       ", which byte-level BPE does not have");
    }
  }
  if (model.value("byte_fallback", false)) {
    throw data_error(origin + ": model.byte_fallback is not supported; byte-level BPE is");
  }
}

void Tokenizer::Impl::read(const json& root) {
  refuse_unsupported(root);
  const json& model = root.at("model");
  read_vocabulary(model.at("vocab"));
  if (model.value("ignore_merges", false)) {
    for (const auto& [token, id] : model["vocab"].items()) {
      whole.emplace(token_to_bytes(token, origin), read_id(id));
    }
  }
  read_merges(model.at("merges"), model.at("vocab"));
  if (root.contains("added_tokens")) read_added_tokens(root["added_tokens"]);
  read_pre_tokenizer(root.at("pre_tokenizer"));
}

void Tokenizer::Impl::split_and_add(std::string_view text, size_t level, PieceEncoder& add) const {
  if (text.empty()) return;
  if (level == splits.size()) {
    add(text);
    return;
  }
  size_t end_of_last = 0;
  splits[level].for_each_match(text, [&](size_t begin, size_t end) {
    split_and_add(text.substr(end_of_last, begin - end_of_last), level + 1, add);
    split_and_add(text.substr(begin, end - begin), level + 1, add);
    end_of_last = end;
  });
  split_and_add(text.substr(end_of_last), level + 1,
                add);  // what a pattern does not match stays whole
}

void Tokenizer::Impl::encode_plain(std::string_view text, std::vector<int32_t>* out) const {
  PieceEncoder encoder(byte_token, merges, whole, out);
  split_and_add(text, 0, encoder);
}

Tokenizer::Tokenizer(const std::filesystem::path& dir) : impl_(std::make_unique<Impl>()) {
  impl_->origin = (dir / "tokenizer.json").string();
  const json root = parse_json(read_text_file(impl_->origin, size_t{256} << 20), impl_->origin);
  try {
    impl_->read(root);
  } catch (const json::exception& error) {
    throw data_error(impl_->origin + ": a key is missing or has the wrong type (" + error.what() +
                     ")");
  }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view raw, bool parse_special) const {
  const std::string text = utf8_repaired(raw);
  const std::string_view view = text;
  std::vector<int32_t> ids;
  size_t end_of_last = 0;
  if (parse_special && impl_->special_split) {
    impl_->special_split->for_each_match(view, [&](size_t begin, size_t end) {
      impl_->encode_plain(view.substr(end_of_last, begin - end_of_last), &ids);
      ids.push_back(*token_id(view.substr(begin, end - begin)));
      end_of_last = end;
    });
  }
  impl_->encode_plain(view.substr(end_of_last), &ids);
  return ids;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  return impl_->bytes[static_cast<size_t>(id)];
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (int32_t id : ids) bytes += token_bytes(id);
  return utf8_repaired(bytes);
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->bytes.size()); }

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  for (const SpecialToken& special : impl_->special) {
    if (special.text == token) return special.id;
  }
  return std::nullopt;
}

std::string StreamDecoder::push(int32_t id) {
  pending_ += tokenizer_.token_bytes(id);
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

}  // namespace dmc::io
