#include "train/model_card.h"

#include <cmath>
#include <sstream>

#include "base/human.h"

namespace dmc::train {
namespace {

void print_heads(std::ostream& out, const std::vector<std::vector<double>>& cr_by_head) {
  const size_t heads = cr_by_head.front().size();
  out << "| layer |";
  for (size_t head = 0; head < heads; ++head) out << " head " << head << " |";
  out << "\n|---|";
  for (size_t head = 0; head < heads; ++head) out << "---|";
  for (size_t layer = 0; layer < cr_by_head.size(); ++layer) {
    out << "\n| " << layer << " |";
    for (double cr : cr_by_head[layer]) out << " " << fixed(cr, 2) << " |";
  }
  out << "\n";
}

void print_verdict(std::ostream& out, const Verdict& verdict) {
  out << "| compression ratio on held-out text | " << fixed(verdict.result().cr, 2) << " |\n\n"
      << "## On held-out text\n\n"
      << verdict.text << ", with the cache compressed.\n\n"
      << "| | compression ratio | loss (nats a token) | perplexity |\n|---|---|---|---|\n";
  for (const Verdict::Line& line : verdict.lines) {
    out << "| " << line.what << " | " << fixed(line.cr, 2) << " | " << fixed(line.loss, 4) << " | "
        << fixed(std::exp(line.loss), 2) << " |\n";
  }
  out << "\n"
      << verdict.advice << "\n\n## Compression ratio by layer and KV head\n\n"
      << "On the same text.\n\n";
  print_heads(out, verdict.result().cr_by_head);
}

// Nothing, where there is nothing to count.
std::string count_line(std::string_view what, int64_t tokens) {
  if (what.empty()) return "";
  return "| " + std::string(what) + " | " + std::to_string(tokens) + " tokens |\n";
}

}  // namespace

std::string to_markdown(const ModelCard& card) {
  std::ostringstream out;
  out << "---\ntags: [dmc, kv-cache-compression]\n---\n\n# " << card.base_model
      << ", retrofitted to compress its KV cache\n\n"
         "Made by `dmc retrofit` ("
      << card.method->title << "): every KV head decides for every token whether "
      << card.method->decides << ". The architecture is " << card.architecture
      << ", so that programs that do not know the method refuse the model instead of running it "
         "wrongly; `dmc convert --plain` makes a dense model of it.\n\n| | |\n|---|---|\n"
      << "| base model | " << card.base_model << " |\n"
      << "| trained on | " << card.data << " |\n"
      << "| tokens | " << card.tokens << ", in sequences of " << card.length << " |\n"
      << "| decisions are taken by | " << card.decisions << " |\n"
      << count_line(card.method->window_counts, card.window)
      << count_line(card.method->delay_counts, card.delay) << "| compression ratio aimed at | "
      << fixed(card.target_cr, 2) << " |\n";
  if (!card.verdict.empty()) {
    print_verdict(out, card.verdict);
  } else if (!card.cr_by_head.empty()) {
    out << "| in the last training step | " << fixed(card.measured_cr, 2) << " |\n"
        << "| loss in the last training step | " << fixed(card.loss, 4) << " nats a token |\n\n"
        << "## Compression ratio by layer and KV head\n\nIn the last training step.\n\n";
    print_heads(out, card.cr_by_head);
  }
  if (!card.command.empty()) out << "\n## Command\n\n    " << card.command << "\n";
  return out.str();
}

}  // namespace dmc::train
