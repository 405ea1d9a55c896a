#include "module.h"

#include <atomic>

#include "base/error.h"
#include "base/parallel.h"

namespace dmc::python {
namespace {

std::atomic<bool> used = false;

// The pool must not change its size while others work on it.
void set_threads(int count) {
  if (used) throw invalid_argument("count", "threads are set before the first LLM or KvCache");
  if (count < 1 || count > 1024) {
    throw invalid_argument("count", "expected 1 to 1024, found " + std::to_string(count));
  }
  set_num_threads(count);
}

}  // namespace

void note_use() { used = true; }

}  // namespace dmc::python

NB_MODULE(_core, module) {
  module.attr("__version__") = DMC_VERSION;
  module.def("set_threads", &dmc::python::set_threads, nanobind::arg("count"),
             "How many cores to use (all, unless set), before the first LLM or KvCache.");
  module.def("threads", &dmc::num_threads);
  dmc::python::add_errors(module);
  dmc::python::add_kv_cache(module);
  dmc::python::add_engine(module);
  dmc::python::add_server(module);
}
