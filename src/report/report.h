// The demo's report: one HTML file that needs nothing else, to read or to show to others.
//
// Every number may be missing: NaN (the default) is shown as a dash, an empty list leaves its chart
// out. The same data are in the page as JSON, in <script id="report-data">, NaN as null.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace dmc::report {

inline constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

struct TrainingPoint {
  int64_t step = 0;
  double loss = kNotMeasured;  // nats per token
  double cr = kNotMeasured, wanted_cr = kNotMeasured;
  double tokens_per_second = kNotMeasured;
};

struct SpeedPoint {
  int64_t context = 0;                      // tokens in the cache before the measured steps
  int batch = 1;                            // sequences decoded together
  double tokens_per_second = kNotMeasured;  // of all sequences together
};

struct SlotsPoint {
  int64_t tokens = 0;           // seen by the sequence
  double slots = kNotMeasured;  // of a KV head, mean over layers and heads
};

// One of the models set side by side.
struct Variant {
  std::string name;                     // "dense", "live 2x", "DMC 4x"
  double bits_per_byte = kNotMeasured;  // on held-out files
  double accuracy = kNotMeasured;       // of the most likely next token, 0 to 1
  double cr = kNotMeasured;             // tokens / slots over the held-out files
  double slots = kNotMeasured;          // of a KV head, mean, after `tokens` tokens
  int64_t tokens = 0;
  double cache_bytes = kNotMeasured;  // one sequence of ReportData::cache_context tokens
  double prefill_tokens_per_second = kNotMeasured;
  std::vector<SpeedPoint> decode;
  std::vector<SlotsPoint> slots_by_tokens;
  std::vector<std::vector<double>> cr_by_head;  // [layer][KV head]
  std::string prompt, sample;                   // `sample` is what the model wrote after `prompt`
};

struct ReportData {
  std::string title, subtitle;
  std::vector<std::pair<std::string, std::string>> facts;  // "parameters", "12.3 M"
  std::string training_name;                               // of the live retrofit: "live 2x"
  std::vector<TrainingPoint> training;
  std::vector<Variant> variants;  // the first one is what the others are compared with
  int64_t cache_context = 0;      // tokens that Variant::cache_bytes is for
  std::string footnote;           // how it was measured
};

std::string render_report(const ReportData& data);

// What render_report embeds. Text that is not UTF-8 is mended with U+FFFD.
std::string report_json(const ReportData& data);

}  // namespace dmc::report
