// dmc::Error as the Python exceptions of dmc/errors.py.
#include <nanobind/stl/string.h>

#include "base/error.h"
#include "module.h"

namespace dmc::python {
namespace {

namespace nb = nanobind;

const char* class_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "InvalidArgumentError";
    case ErrorCode::kNotFound:
      return "NotFoundError";
    case ErrorCode::kData:
      return "DataError";
    case ErrorCode::kExhausted:
      return "ExhaustedError";
    case ErrorCode::kCancelled:
      return "CancelledError";
    case ErrorCode::kUnavailable:
      return "UnavailableError";
    default:
      return "InternalError";
  }
}

void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    const nb::object type = nb::module_::import_("dmc.errors").attr(class_of(error.code()));
    const nb::object value = type(error.what(), error.field());
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

}  // namespace

void add_errors(nb::module_&) { nb::register_exception_translator(translate); }

}  // namespace dmc::python
