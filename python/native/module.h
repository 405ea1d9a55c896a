// The parts of the extension module dmc._core.
#pragma once

#include <nanobind/nanobind.h>

namespace dmc::python {

void add_errors(nanobind::module_& module);
void add_kv_cache(nanobind::module_& module);
void add_engine(nanobind::module_& module);
void add_server(nanobind::module_& module);

void note_use();  // something computes from now on: the number of threads is settled

}  // namespace dmc::python
