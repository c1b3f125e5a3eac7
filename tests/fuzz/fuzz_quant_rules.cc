// Any bytes as rules of quantisation, and as the reports in the state of a stopped run: rules that can be written, or
// an Error.
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "quant/report.h"
#include "quant/rules.h"

namespace puna::quant {
namespace {

void read_as_rules(std::string_view text) {
  try {
    const Rules rules = parse_rules(text, "fuzz");
    if (rules.json().size() != 8) __builtin_trap();
  } catch (const Error&) {
  }
}

void read_as_reports(std::string_view text) {
  try {
    QuantiseReport report;
    report.tensors = reports_from(parse_json(text, "fuzz"), "fuzz");
    if (report.text().empty() || reports_json(report.tensors).size() != report.tensors.size()) __builtin_trap();
  } catch (const Error&) {
  }
}

}  // namespace
}  // namespace puna::quant

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  puna::quant::read_as_rules(text);
  puna::quant::read_as_reports(text);
  return 0;
}
