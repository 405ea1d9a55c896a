// The engine under dmc.LLM, for Python: what computes releases the interpreter's lock.
#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "engine.h"
#include "module.h"

namespace dmc::python {
namespace {

namespace nb = nanobind;
using namespace nb::literals;
using Released = nb::call_guard<nb::gil_scoped_release>;

void add_records(nb::module_& module) {
  nb::class_<engine::TokenLogprob>(module, "TokenLogprob")
      .def_ro("token", &engine::TokenLogprob::token)
      .def_ro("logprob", &engine::TokenLogprob::logprob);
  nb::class_<engine::Logprobs>(module, "Logprobs")
      .def_ro("token", &engine::Logprobs::token)
      .def_ro("rank", &engine::Logprobs::rank)
      .def_ro("top", &engine::Logprobs::top);
  nb::class_<Kv>(module, "Kv")
      .def_ro("seen", &Kv::seen)
      .def_ro("slots", &Kv::slots)
      .def_ro("bytes", &Kv::bytes);
  nb::class_<Event>(module, "Event")
      .def_ro("choice", &Event::choice)
      .def_ro("text", &Event::text)
      .def_ro("token", &Event::token)
      .def_ro("logprobs", &Event::logprobs)
      .def_ro("finish_reason", &Event::finish_reason)
      .def_ro("stop_string", &Event::stop_string)
      .def_ro("stop_token", &Event::stop_token)
      .def_ro("kv", &Event::kv)
      .def_ro("prompt_logprobs", &Event::prompt_logprobs);
  nb::class_<eval::LogLikelihood>(module, "LogLikelihood")
      .def_ro("log_prob", &eval::LogLikelihood::log_prob)
      .def_ro("greedy", &eval::LogLikelihood::greedy);
}

// A member of a member of a request's options as an attribute.
template <auto Outer, auto Inner>
void field(nb::class_<Asked>& type, const char* name) {
  using Value = std::remove_cvref_t<decltype((std::declval<Asked>().request.*Outer).*Inner)>;
  type.def_prop_rw(
      name, [](const Asked& a) { return (a.request.*Outer).*Inner; },
      [](Asked& a, Value value) { (a.request.*Outer).*Inner = std::move(value); });
}
template <auto Member>
void field(nb::class_<Asked>& type, const char* name) {
  using Value = std::remove_cvref_t<decltype(std::declval<Asked>().request.*Member)>;
  type.def_prop_rw(
      name, [](const Asked& a) { return a.request.*Member; },
      [](Asked& a, Value value) { a.request.*Member = std::move(value); }, nb::arg().none());
}

void add_asked(nb::module_& module) {
  using engine::LogitRules, engine::RequestOptions, engine::SamplingOptions;
  nb::class_<Asked> asked(module, "Asked");
  asked.def(nb::init<>())
      .def_rw("stop", &Asked::stop)
      .def_rw("keep_stop", &Asked::keep_stop)
      .def_rw("ignore_eos", &Asked::ignore_eos)
      .def_rw("chat", &Asked::chat)
      .def_rw("skip_special", &Asked::skip_special);
  constexpr auto kSampling = &RequestOptions::sampling;
  field<kSampling, &SamplingOptions::temperature>(asked, "temperature");
  field<kSampling, &SamplingOptions::top_k>(asked, "top_k");
  field<kSampling, &SamplingOptions::top_p>(asked, "top_p");
  field<kSampling, &SamplingOptions::min_p>(asked, "min_p");
  field<kSampling, &SamplingOptions::seed>(asked, "seed");
  constexpr auto kRules = &RequestOptions::rules;
  field<kRules, &LogitRules::repetition_penalty>(asked, "repetition_penalty");
  field<kRules, &LogitRules::presence_penalty>(asked, "presence_penalty");
  field<kRules, &LogitRules::frequency_penalty>(asked, "frequency_penalty");
  field<kRules, &LogitRules::bias>(asked, "bias");
  field<kRules, &LogitRules::min_tokens>(asked, "min_tokens");
  field<&RequestOptions::stop_ids>(asked, "stop_ids");
  field<&RequestOptions::max_tokens>(asked, "max_tokens");
  field<&RequestOptions::choices>(asked, "choices");
  field<&RequestOptions::logprobs>(asked, "logprobs");
  field<&RequestOptions::prompt_logprobs>(asked, "prompt_logprobs");
}

// Ctrl-C ends the call that it is asked in.
void throw_if_interrupted() {
  const nb::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

Kv cache_of(const Engine& engine, const eval::Score& score) {
  Kv kv{score.tokens, {}, 0};
  for (const std::vector<double>& layer : score.cr_by_head) {
    for (const double ratio : layer) {
      kv.slots.push_back(std::llround(static_cast<double>(score.tokens) / ratio));
      kv.bytes += engine.bytes_of(kv.slots.back());
    }
  }
  return kv;
}

void add_score(nb::module_& module) {
  struct TextScore {
    double loss, accuracy;
    int64_t predicted;
    Kv kv;
  };
  nb::class_<TextScore>(module, "TextScore")
      .def_ro("loss", &TextScore::loss)
      .def_ro("accuracy", &TextScore::accuracy)
      .def_ro("predicted", &TextScore::predicted)
      .def_ro("kv", &TextScore::kv);
  module.def(
      "score",
      [](Engine& engine, const Engine::Tokens& text, int64_t window) {
        const eval::Score score =
            engine.score(text, window, [](int64_t) { throw_if_interrupted(); });
        const int64_t size = window > 0 ? window : engine.context();
        const auto tokens = static_cast<int64_t>(text.size());
        const int64_t windows = (tokens + size - 1) / size;
        // A last window of one token is left out.
        const int64_t predicted = score.tokens - (tokens % size == 1 ? windows - 1 : windows);
        return TextScore{score.loss, score.next_token_accuracy, predicted, cache_of(engine, score)};
      },
      "engine"_a, "text"_a, "window"_a, Released());
}

void construct(Engine* self, const std::string& model, const std::string& weights,
               const std::string& kv, const std::string& device,
               const std::filesystem::path& adapter, const std::string& policy, int64_t budget,
               double cr, double decision_bias, int64_t context, int64_t max_sequences,
               int64_t cache_bytes, bool share_prefixes) {
  EngineOptions options{weights, kv, device, adapter};
  options.policy.policy = policy;
  options.policy.budget = budget;
  options.policy.cr = cr;
  options.policy.decision_bias = decision_bias;
  options.context = context;
  options.max_sequences = max_sequences;
  options.cache_bytes = cache_bytes;
  options.share_prefixes = share_prefixes;
  note_use();
  const nb::gil_scoped_release loading;
  new (self) Engine(model, options);
}

nb::dict shape(const Engine& engine) {
  const model::ModelConfig& c = engine.config();
  nb::dict shape;
  shape["layers"] = c.num_layers;
  shape["heads"] = c.num_heads;
  shape["kv_heads"] = c.num_kv_heads;
  shape["head_dim"] = c.head_dim;
  shape["hidden_size"] = c.hidden_size;
  shape["vocab_size"] = c.vocab_size;
  shape["context"] = engine.context();
  shape["parameters"] = engine.model().parameters;
  return shape;
}

}  // namespace

void add_engine(nb::module_& module) {
  add_records(module);
  add_asked(module);
  nb::class_<Ticket>(module, "Ticket")
      .def("take", &Ticket::take, "seconds"_a, Released())
      .def("done", &Ticket::done)
      .def("cancel", &Ticket::cancel);
  nb::class_<Engine>(module, "Engine", nb::is_weak_referenceable())
      .def("__init__", &construct, "model"_a, nb::kw_only(), "weights"_a, "kv"_a, "device"_a,
           "adapter"_a, "policy"_a, "budget"_a, "cr"_a, "decision_bias"_a, "context"_a,
           "max_sequences"_a, "cache_bytes"_a, "share_prefixes"_a)
      .def("encode", &Engine::encode, "text"_a, "as_prompt"_a, Released())
      .def("decode", &Engine::decode, "ids"_a, Released())
      .def("encode_chat", &Engine::encode_chat, "messages"_a, "variables"_a, "reply_follows"_a,
           Released())
      .def("submit", &Engine::submit, "prompt"_a, "asked"_a, nb::keep_alive<0, 1>(), Released())
      .def("rate", &Engine::rate, "context"_a, "continuations"_a, Released())
      .def("stop", &Engine::stop, Released())
      .def_prop_ro("shape", &shape)
      .def_prop_ro("policy", &Engine::policy)
      .def_prop_ro("path", &Engine::path)
      .def_prop_ro("eos_ids", [](const Engine& e) { return e.config().eos_token_ids; })
      .def_prop_ro("family", [](const Engine& e) { return e.config().model_type; });
  add_score(module);
}

}  // namespace dmc::python
