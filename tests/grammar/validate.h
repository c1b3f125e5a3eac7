// Does a JSON value satisfy a schema? As the standard says it, without grammars; for the keys that the tests use.
#pragma once

#include "base/json.h"

namespace puna::grammar::test {

bool is_valid(const OrderedJson& value, const OrderedJson& schema, const OrderedJson& root);

}  // namespace puna::grammar::test
