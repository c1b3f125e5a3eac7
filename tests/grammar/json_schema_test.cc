#include "grammar/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/grammar/support.h"
#include "tests/grammar/validate.h"

namespace puna::grammar {
namespace {

using test::matches;

const std::vector<std::string>& typical_schemas() {
  static const std::vector<std::string> schemas = {
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
          "tags":{"type":"array","items":{"type":"string","maxLength":8},"maxItems":3}},"required":["name"]})",
      R"({"type":"object","properties":{"a":{"type":"boolean"},"b":{"type":"null"},"c":{"type":"number"}},
          "additionalProperties":{"type":"integer"}})",
      R"({"$defs":{"node":{"type":"object","properties":{"value":{"type":"integer"},"left":{"$ref":"#/$defs/node"},
          "right":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["value"]}},"$ref":"#/$defs/node"})",
      R"({"type":"array","prefixItems":[{"const":"x"},{"enum":["red","gr\u00fcn",3,null,{"k":[1,2]}]}],
          "items":{"type":["boolean","null"]},"minItems":1,"maxItems":4})",
      R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"circle"},"r":{"type":"number","minimum":0}},"required":["kind","r"]},
          {"type":"object","properties":{"kind":{"const":"square"},"side":{"type":"number","minimum":-2,"maximum":3}},"required":["kind","side"]}]})",
      R"({"allOf":[{"type":"object","properties":{"id":{"type":"integer","exclusiveMinimum":-12,"maximum":1305}},"required":["id"]},
          {"properties":{"when":{"type":"string","pattern":"^[0-9]{2}:[0-5]\\d$"}},"required":["when"]}]})",
      R"({"definitions":{"Node":{"type":"object","properties":{"value":{"type":"integer"},"next":{"title":"Next","allOf":[{"$ref":"#/definitions/Node"}]}},
          "required":["value"]}},"$ref":"#/definitions/Node"})",
      R"({"definitions":{"N":{"type":"object","properties":{"v":{"type":"integer"},"n":{"allOf":[{"$ref":"#/definitions/N"}],"required":["v"]}}}},
          "$ref":"#/definitions/N"})",
      R"({"type":"string","minLength":2,"maxLength":5})",
      R"({"type":"string","pattern":"^(?:a|b\"\\\\c|[^\\w]+\\.)x?$"})",
      R"({"type":"string","pattern":"ab+"})",
      R"({"type":"integer"})",
      R"({"type":["string","integer"],"nullable":true})",
      R"({"type":"object","additionalProperties":{"type":"string"},"required":["q","r"]})",
      R"({"type":"object","minProperties":2,"maxProperties":3})",
      R"({"type":"array","minItems":2})",
      R"({"type":"integer","minimum":-9223,"maximum":-17})",
      R"({"type":"number","maximum":-3})",
      "true",
      "{}"};
  return schemas;
}

TEST(JsonSchema, RandomTextsAreValid) {
  const auto vocabulary = test::synthetic_vocabulary(2000, 7);
  std::mt19937_64 random(2);
  for (const std::string& text : typical_schemas()) {
    const OrderedJson schema = parse_ordered_json(text, "test");
    const auto grammar = test::schema(text, vocabulary);
    for (int i = 0; i < 25; ++i) {
      const std::string json = test::random_text(*grammar, random, 30);
      OrderedJson value;
      ASSERT_NO_THROW(value = OrderedJson::parse(json)) << text << "\n" << json;
      // A key that comes twice is one member afterwards.
      if (!schema.is_object() || !schema.contains("minProperties")) {
        ASSERT_TRUE(test::is_valid(value, schema, schema)) << text << "\n" << json;
      }
    }
  }
}

TEST(JsonSchema, TextsAsProgramsWriteThemAreAccepted) {
  const std::vector<std::pair<const char*, std::vector<const char*>>> cases = {
      {typical_schemas()[0].c_str(),
       {R"({"name":"x"})", R"({"name": "x", "age": 150, "tags": ["a", "b\n", "\u00e9\ud83d\ude00"]})",
        "{\n  \"name\": \"x\",\n  \"tags\": [\n    \"a\"\n  ]\n}"}},
      {typical_schemas()[1].c_str(), {"{}", R"({"b":null})", R"({"a":true,"c":-1.5e-7,"aa":3,"":4})", R"({"d":1})"}},
      {typical_schemas()[2].c_str(), {R"({"value":1,"left":{"value":2,"right":null},"right":{"value":3}})"}},
      {typical_schemas()[3].c_str(), {R"(["x"])", "[\"x\",\"gr\xC3\xBCn\"]", R"(["x",{"k":[1,2]},null,true])"}},
      {R"({"type":"string","format":"date"})", {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\""}},
      {R"({"type":"string","format":"date-time"})", {"\"2024-01-01T00:00:00Z\"", "\"2024-01-01T23:59:59.5+05:30\""}},
      {R"({"type":"string","format":"uuid"})", {"\"123e4567-e89b-12d3-a456-426614174000\""}},
      {R"({"type":"string","format":"email"})", {"\"a.b+c@example.co.uk\""}},
      {R"({"type":"object"})", {"{}", R"({"a":[1,{"b":"c"}]})"}},
      {R"({"type":"number","minimum":0,"maximum":1})", {"0", "1", "0.25", "1.0"}},
      {R"({"type":"integer","minimum":99,"maximum":1001})", {"99", "100", "999", "1001"}},
      {R"({"definitions":{"a b":{"type":"null"}},"$ref":"#/definitions/a%20b"})", {"null"}}};
  for (const auto& [schema, texts] : cases) {
    const auto grammar = test::schema(schema, test::vocabulary());
    for (const char* text : texts) EXPECT_TRUE(matches(*grammar, text)) << schema << "\n" << text;
  }
}

TEST(JsonSchema, OtherTextsAreRefused) {
  const std::vector<std::pair<const char*, std::vector<const char*>>> cases = {
      {typical_schemas()[0].c_str(),
       {"{}", R"({"age":3})", R"({"name":"x","age":151})", R"({"name":"x","age":-1})", R"({"name":"x","age":01})",
        R"({"name":"x","more":1})", R"({"name":"x",})", R"({"name":"x","tags":["123456789"]})",
        R"({"name":"x","tags":["a","b","c","d"]})", "{\"name\":\"\n\"}", R"({"name":"\ud800"})",
        "{\"name\":\"\xFF\"}"}},
      {typical_schemas()[1].c_str(), {R"({"a":1})", R"({"zz":"x"})", R"({"c":"x"})", R"({"c":1,"a":true})"}},
      {typical_schemas()[3].c_str(), {"[]", R"(["y"])", R"(["x",3,1])", R"(["x",3,null,true,true])"}},
      {typical_schemas()[6].c_str(), {R"("a")", R"("abcdef")"}},
      {R"({"type":"string","format":"date"})",
       {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\"", "\"2024-13-01\""}},
      {R"({"type":"number","minimum":0,"maximum":1})", {"1.1", "-0.1", "2"}},
      {R"({"type":"integer","minimum":99,"maximum":1001})", {"98", "1002", "9", "10000", "-99"}},
      {R"({"enum":["a"]})", {"\"b\"", "a"}}};
  for (const auto& [schema, texts] : cases) {
    const auto grammar = test::schema(schema, test::vocabulary());
    for (const char* text : texts) EXPECT_FALSE(matches(*grammar, text)) << schema << "\n" << text;
  }
}

TEST(JsonSchema, IntegerRangesAreExact) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 60; ++round) {
    const int64_t a = static_cast<int64_t>(random() % 2400) - 1200, b = a + static_cast<int64_t>(random() % 1500);
    const auto grammar =
        test::schema(fmt::format(R"({{"type":"integer","minimum":{},"maximum":{}}})", a, b), test::vocabulary());
    for (int64_t x = -1500; x <= 3000; x += 1 + static_cast<int64_t>(random() % 5))
      ASSERT_EQ(matches(*grammar, std::to_string(x)), a <= x && x <= b) << x << " of " << a << " to " << b;
  }
}

TEST(JsonSchema, WhatIsNotSupportedIsNamedWithItsPath) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"properties":{"a":{"not":{}}}})", "#/properties/a: the key 'not' is not supported"},
      {R"({"items":{"multipleOf":2}})", "#/items: the key 'multipleOf' is not supported"},
      {R"({"propertis":{}})", "unknown key 'propertis'; did you mean 'properties'?"},
      {R"({"type":"strin"})", "the type \"strin\""},
      {R"({"type":"array","uniqueItems":true})", "'uniqueItems'"},
      {R"({"type":"string","format":"dat"})", "did you mean 'date'?"},
      {R"({"type":"string","pattern":"(?=a)b"})", "look-around"},
      {R"({"type":"string","pattern":"(a)\\1"})", "'\\1' is not supported"},
      {R"({"type":"string","pattern":"a","minLength":3})", "'pattern' with minLength"},
      {R"({"type":"number","minimum":0.5})", "'minimum' of numbers"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "no number is from 3 to 2"},
      {R"({"type":"object","properties":{"a":{}},"required":["b"]})", "'required' names 'b'"},
      {R"({"$ref":"other.json"})", "only references within the schema"},
      {R"({"$ref":"#/$defs/x"})", "which is not in the schema"},
      {R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})", "no finite text"},
      {R"({"$defs":{"a":{"properties":{"x":{"$ref":"#/$defs/a"}},"required":["x"]}},"$ref":"#/$defs/a"})",
       "no finite text"},
      {R"({"$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})", "no finite text"},
      {R"({"$defs":{"a":{"minLength":1,"allOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})", "lead into each other"},
      {R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]})",
       "'additionalProperties'"},
      {R"({"enum":["a"],"minLength":2})", "'minLength' beside 'enum'"},
      {R"({"type":"string","maxLength":1000000})", "'maxLength' is above 10000"},
      {"false", "no finite text"},
      {"3", "a schema is an object"}};
  for (const auto& [schema, message] : cases) try {
      test::schema(schema, test::vocabulary());
      ADD_FAILURE() << schema;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(message)) << schema;
    }
}

TEST(JsonSchema, UrlsAsPydanticAsksForThem) {
  const auto vocabulary = test::vocabulary();
  const auto url = test::schema(R"({"type":"string","format":"uri","minLength":1,"maxLength":2083})", vocabulary);
  for (const char* good : {"http://a", "https://example.com", "https://a.b-c.org:8080/x/y.png?q=1&r=%C3%A9#top"})
    EXPECT_TRUE(matches(*url, fmt::format("\"{}\"", good))) << good;
  for (const char* bad : {"", "example.com", "ftp://a", "https://", "https://-a", "https://a b", "https://a/\\u00e9"})
    EXPECT_FALSE(matches(*url, fmt::format("\"{}\"", bad))) << bad;
  EXPECT_TRUE(matches(*test::schema(R"({"type":"string","format":"uri"})", vocabulary),
                      fmt::format("\"https://a/{}\"", std::string(5000, 'x'))));
  EXPECT_FALSE(matches(*url, fmt::format("\"https://a/{}\"", std::string(2080, 'x'))));
  EXPECT_THROW(test::schema(R"({"type":"string","format":"uri","maxLength":20})", vocabulary), Error);
}

TEST(JsonSchema, ManyOptionalPropertiesCostLittle) {
  std::string properties;
  for (int i = 0; i < 300; ++i) properties += fmt::format(R"({}"property{}":{{"type":"string"}})", i > 0 ? "," : "", i);
  const auto grammar = test::schema("{\"properties\":{" + properties + "}}", test::vocabulary());
  EXPECT_LT(grammar->num_states(), 50'000u);
  EXPECT_TRUE(matches(*grammar, R"({"property7":"a","property200":"b","property299":""})"));
  EXPECT_FALSE(matches(*grammar, R"({"property7":"a","property6":"b"})"));
}

TEST(JsonSchema, AnyJsonIsAllOfJson) {
  const auto grammar = CompiledGrammar::compile(any_json(false), test::vocabulary());
  for (const char* text : {"{}", "[1, [2, {\"a\": null}]]", "-0.5e+10", "\"\\u00e9\"", "true"})
    EXPECT_TRUE(matches(*grammar, text)) << text;
  for (const char* text : {"", "{", "01", "[1,]", "nul", "'a'", "{\"a\" 1}"})
    EXPECT_FALSE(matches(*grammar, text)) << text;
  EXPECT_FALSE(matches(*CompiledGrammar::compile(any_json(true), test::vocabulary()), "[]"));
}

}  // namespace
}  // namespace puna::grammar
