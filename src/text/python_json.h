// JSON as Python's json.dumps writes it, which is how the chat formats show tools and tool calls to the model.
#pragma once

#include <string>

#include "base/json.h"

namespace puna::text {

struct PythonJsonOptions {
  bool ensure_ascii = true;  // characters beyond ASCII as \uXXXX
  int indent = 0;            // 0: on one line
};

/// json.dumps(value). Throws Error on strings that are not UTF-8.
std::string python_json(const OrderedJson& value, const PythonJsonOptions& options = {});

/// str(value) of a number, True, False or None.
std::string python_str(const OrderedJson& value);

}  // namespace puna::text
