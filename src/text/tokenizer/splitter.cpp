#include "text/tokenizer/splitter.h"

#include <algorithm>
#include <memory>
#include <span>

#include "base/error.h"
#include "base/quoted.h"
#include "base/utf8.h"
#include "text/regex.h"
#include "text/tokenizer/normalizer.h"
#include "text/unicode.h"

namespace dmc::text {

using nlohmann::json;

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

using Origin = const std::string&;

// What becomes of the text that a splitter's pattern matches.
enum class Matched { kIsolated, kRemoved, kContiguous, kWithPrevious, kWithNext };

Matched read_behavior(const json& spec, Origin origin) {
  constexpr std::pair<const char*, Matched> kBehaviors[] = {
      {"Isolated", Matched::kIsolated},
      {"Removed", Matched::kRemoved},
      {"Contiguous", Matched::kContiguous},
      {"MergedWithPrevious", Matched::kWithPrevious},
      {"MergedWithNext", Matched::kWithNext}};
  const auto name = spec.at("behavior").get<std::string>();
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  throw data_error(origin + ": pre_tokenizer behavior " + in_quotes(name) + " is not supported");
}

// Cuts one piece, told of the matches from left to right.
class Cutter {
 public:
  Cutter(Piece piece, Matched matched, const PieceSink& sink)
      : piece_(piece), matched_(matched), sink_(sink) {}

  void match(size_t begin, size_t end) {
    const bool isolated = matched_ == Matched::kIsolated;
    const bool next_run = matched_ == Matched::kContiguous && begin != end_of_match_;
    if (next_run) cut(end_of_match_);
    if (isolated || next_run || matched_ == Matched::kWithNext) cut(begin);
    if (isolated || matched_ == Matched::kWithPrevious) cut(end);
    if (matched_ == Matched::kRemoved) {
      cut(begin);
      done_ = end;
    }
    end_of_match_ = end;
  }

  void finish() {
    if (matched_ == Matched::kContiguous) cut(end_of_match_);
    cut(piece_.text.size());
  }

 private:
  void cut(size_t at) {
    if (at > done_) sink_({piece_.text.substr(done_, at - done_), piece_.at_start && done_ == 0});
    done_ = at;
  }

  Piece piece_;
  Matched matched_;
  const PieceSink& sink_;
  size_t done_ = 0, end_of_match_ = 0;
};

// Cuts at the matches that `for_each_match(text, work, fn)` reports to fn(begin, end).
template <typename ForEachMatch>
Splitter cutting_splitter(ForEachMatch for_each_match, Matched matched) {
  return [=](Piece piece, Work& work, const PieceSink& sink) {
    Cutter cutter(piece, matched, sink);
    for_each_match(piece.text, work, [&](size_t begin, size_t end) { cutter.match(begin, end); });
    cutter.finish();
  };
}

Splitter regex_splitter(const std::string& pattern, Matched matched, Origin origin) {
  const auto regex = std::make_shared<Regex>(pattern, origin);
  return cutting_splitter([regex](std::string_view text, Work& work,
                                  const auto& fn) { regex->for_each_match(text, work, fn); },
                          matched);
}

// Every character for which `predicate` holds is a match.
template <typename Predicate>
Splitter character_splitter(Predicate predicate, Matched matched) {
  return cutting_splitter(
      [predicate](std::string_view text, Work&, const auto& fn) {
        for (std::string_view rest = text; !rest.empty();) {
          const size_t begin = text.size() - rest.size();
          if (predicate(take_code_point(&rest))) fn(begin, text.size() - rest.size());
        }
      },
      matched);
}

bool is_bert_punctuation(char32_t c) {
  constexpr std::u32string_view kAsciiSymbols = U"$+<=>^`|~";  // BERT counts them in
  return is_punctuation(c) || kAsciiSymbols.find(c) != kAsciiSymbols.npos;
}

std::vector<Splitter> split_steps(const json& spec, Origin origin) {
  if (spec.value("invert", false)) {
    throw data_error(origin + ": a pre_tokenizer Split with \"invert\" is not supported");
  }
  const json& pattern = spec.at("pattern");
  const bool literal = pattern.contains("String");
  const auto text = pattern.at(literal ? "String" : "Regex").get<std::string>();
  return {regex_splitter(literal ? escape_regex(text) : text, read_behavior(spec, origin), origin)};
}

std::vector<Splitter> digits_steps(const json& spec, Origin origin) {
  const bool each = spec.value("individual_digits", false);
  return {regex_splitter(each ? R"(\p{N})" : R"(\p{N}+)", Matched::kIsolated, origin)};
}

std::vector<Splitter> byte_level_steps(const json& spec, Origin origin) {
  std::vector<Splitter> steps;
  if (spec.value("add_prefix_space", true)) {
    steps.push_back([](Piece piece, Work& work, const PieceSink& sink) {
      if (piece.text.starts_with(' ')) return sink(piece);
      work.charge(piece.text.size() + 1);
      const std::string text = " " + std::string(piece.text);
      sink({text, piece.at_start});
    });
  }
  if (spec.value("use_regex", true)) steps.push_back(isolating_splitter(kGpt2Pattern, origin));
  return steps;
}

std::string prepend_scheme(const json& spec) {
  if (spec.contains("prepend_scheme")) return spec["prepend_scheme"].get<std::string>();
  return spec.value("add_prefix_space", true) ? "always" : "never";  // older files
}

std::vector<Splitter> metaspace_steps(const json& spec, Origin origin) {
  const auto mark = spec.value("replacement", std::string("▁"));
  const std::string scheme = prepend_scheme(spec);
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    throw data_error(origin + ": Metaspace prepend_scheme " + in_quotes(scheme) +
                     " is not supported");
  }
  std::vector<Splitter> steps = {[=](Piece piece, Work& work, const PieceSink& sink) {
    work.charge(piece.text.size() + mark.size());
    std::string text(piece.text);
    replace_all(" ", mark, work, &text);
    const bool prepend = scheme == "always" || (scheme == "first" && piece.at_start);
    if (prepend && !text.starts_with(mark)) text.insert(0, mark);
    sink({text, piece.at_start});
  }};
  if (spec.value("split", true)) {
    steps.push_back(regex_splitter(escape_regex(mark), Matched::kWithNext, origin));
  }
  return steps;
}

struct Kind {
  const char* type;
  std::function<std::vector<Splitter>(const json& spec, Origin)> make;
};

const Kind kKinds[] = {
    {"Split", split_steps},
    {"Digits", digits_steps},
    {"ByteLevel", byte_level_steps},
    {"Metaspace", metaspace_steps},
    {"BertPreTokenizer",
     [](const json&, Origin) -> std::vector<Splitter> {
       return {character_splitter(is_white_space, Matched::kRemoved),
               character_splitter(is_bert_punctuation, Matched::kIsolated)};
     }},
    {"WhitespaceSplit",
     [](const json&, Origin) -> std::vector<Splitter> {
       return {character_splitter(is_white_space, Matched::kRemoved)};
     }},
    {"Whitespace",
     [](const json&, Origin origin) -> std::vector<Splitter> {
       return {character_splitter(is_white_space, Matched::kRemoved),
               isolating_splitter(R"(\w+|[^\w\s]+)", origin)};
     }},
    {"Punctuation",
     [](const json& spec, Origin origin) -> std::vector<Splitter> {
       return {character_splitter(is_bert_punctuation, read_behavior(spec, origin))};
     }},
};

void append_splitters(const json& spec, Origin origin, Splitters* splitters) {
  const auto type = spec.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const json& part : spec.at("pretokenizers")) append_splitters(part, origin, splitters);
    return;
  }
  if (splitters->bytes) {
    throw data_error(origin + ": pre_tokenizer " + in_quotes(type) +
                     " after ByteLevel is not supported");
  }
  const auto* kind = std::ranges::find_if(kKinds, [&](const Kind& k) { return type == k.type; });
  if (kind == std::end(kKinds)) {
    throw data_error(origin + ": pre_tokenizer " + in_quotes(type) + " is not supported");
  }
  for (Splitter& step : kind->make(spec, origin)) splitters->steps.push_back(std::move(step));
  splitters->bytes = type == "ByteLevel";
  require_few_steps(splitters->steps.size(), "pre_tokenizers", origin);
}

void split_from(std::span<const Splitter> steps, Piece piece, Work& work, const PieceSink& sink) {
  if (piece.text.empty()) return;
  if (steps.empty()) return sink(piece);
  work.tick();
  steps.front()(piece, work, [&](Piece part) { split_from(steps.subspan(1), part, work, sink); });
}

}  // namespace

Splitter isolating_splitter(const std::string& pattern, const std::string& origin) {
  return regex_splitter(pattern, Matched::kIsolated, origin);
}

Splitters read_splitters(const json& spec, const std::string& origin) {
  Splitters splitters;
  append_splitters(spec, origin, &splitters);
  return splitters;
}

void split(const std::vector<Splitter>& steps, Piece piece, Work& work, const PieceSink& sink) {
  split_from(steps, piece, work, sink);
}

}  // namespace dmc::text
