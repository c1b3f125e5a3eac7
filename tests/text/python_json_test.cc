// json.dumps of Python, byte for byte.
#include "text/python_json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace puna::text {
namespace {

const std::string kValue = R"({"a":")"
                           "\xc3\xa9\xf0\x9f\xa6\x99"
                           R"(\u007f\u001f\"\\/\n\t\b\f\r","b":[],"c":{},"d":[1,-2,true,null],"e":{"x":[1]}})";

TEST(PythonJson, OneLineInAscii) {
  const auto value = parse_ordered_json(kValue, "test");
  EXPECT_EQ(python_json(value),
            R"({"a": "\u00e9\ud83e\udd99\u007f\u001f\"\\/\n\t\b\f\r", "b": [], "c": {}, "d": [1, -2, true, null], )"
            R"("e": {"x": [1]}})");
}

TEST(PythonJson, IndentedInUtf8) {
  const auto value = parse_ordered_json(kValue, "test");
  EXPECT_EQ(python_json(value, {.ensure_ascii = false, .indent = 4}),
            "{\n    \"a\": \"\xc3\xa9\xf0\x9f\xa6\x99\x7f\\u001f\\\"\\\\/\\n\\t\\b\\f\\r\",\n    \"b\": [],\n    "
            "\"c\": {},\n    \"d\": [\n"
            "        1,\n        -2,\n        true,\n        null\n    ],\n    \"e\": {\n        \"x\": [\n"
            "            1\n        ]\n    }\n}");
}

TEST(PythonJson, FloatsAsReprWritesThem) {
  const auto value = parse_ordered_json(
      "[1e15, 1e16, 123456789012345680.0, 1e-5, 0.0001, -0.0, 3.14, 1e22, 5e-324, 1.7976931348623157e308, "
      "9007199254740993.0, 100.0]",
      "test");
  EXPECT_EQ(python_json(value),
            "[1000000000000000.0, 1e+16, 1.2345678901234568e+17, 1e-05, 0.0001, -0.0, 3.14, 1e+22, 5e-324, "
            "1.7976931348623157e+308, 9007199254740992.0, 100.0]");
  EXPECT_EQ(python_str(nullptr), "None");
  EXPECT_EQ(python_str(true), "True");
  EXPECT_EQ(python_str(2.0), "2.0");
}

TEST(PythonJson, KeepsTheOrderOfKeysAndRefusesDuplicates) {
  EXPECT_EQ(python_json(parse_ordered_json(R"({"z":1,"a":2})", "test")), R"({"z": 1, "a": 2})");
  EXPECT_THROW(parse_ordered_json(R"({"z":1,"z":2})", "test"), Error);
  EXPECT_THROW(python_json(OrderedJson("\xFF")), Error);
}

}  // namespace
}  // namespace puna::text
