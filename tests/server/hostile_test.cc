// Bodies in which something is other than it should be: each is answered, or refused as the client's mistake.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/serving.h"

namespace puna::server {
namespace {

using http::test::Client;
using http::test::status_of;

struct Call {
  const char* path;
  const char* body;
};

// Every field that is read, each of a kind that is taken.
constexpr Call kCalls[] = {
    {"/v1/chat/completions",
     R"({"model": "tiny", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text",
         "text": "b"}]}, {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function":
         {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "d"}], "max_tokens": 2,
         "n": 2, "stop": ["x"], "seed": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "typical_p": 0.9,
         "logit_bias": {"5": 1}, "logprobs": true, "top_logprobs": 2, "stream": true, "stream_options":
         {"include_usage": true}, "frequency_penalty": 0.1, "presence_penalty": 0.1, "repetition_penalty": 1.1,
         "tools": [{"type": "function", "function": {"name": "f", "description": "g", "parameters": {"type": "object",
         "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}], "tool_choice": "auto",
         "parallel_tool_calls": false, "timeout": 5, "priority": 0, "user": "u"})"},
    {"/v1/chat/completions",
     R"({"messages": [{"role": "user", "content": "b"}], "max_completion_tokens": 3, "response_format": {"type":
         "json_schema", "json_schema": {"name": "s", "strict": true, "schema": {"type": "object", "properties": {"a":
         {"enum": [1, 2]}, "b": {"type": "array", "items": {"$ref": "#/$defs/d"}, "maxItems": 2}}, "required": ["a"],
         "additionalProperties": false, "$defs": {"d": {"type": "string", "maxLength": 2}}}}}})"},
    {"/v1/completions",
     R"({"prompt": ["a", [5, 6]], "max_tokens": 2, "echo": true, "logprobs": 1, "stop_token_ids": [7], "suffix": null,
         "best_of": 1, "grammar": "root ::= [ab]+", "ignore_eos": false})"},
    {"/v1/completions", R"({"prompt": "a", "max_tokens": 2, "return_routing": "if_room"})"},
    {"/v1/responses",
     R"({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}, {"type": "function_call",
         "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output":
         "d"}], "instructions": "e", "max_output_tokens": 16, "stream": true, "store": false, "text": {"format":
         {"type": "text"}}, "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
         "tool_choice": {"type": "function", "name": "f"}, "metadata": {"a": "b"}, "top_logprobs": 1, "truncation":
         "disabled", "include": ["message.output_text.logprobs"]})"},
    {"/v1/messages",
     R"({"model": "tiny", "system": [{"type": "text", "text": "a"}], "messages": [{"role": "user", "content": "b"},
         {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}]},
         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "c"}]}], "max_tokens": 2,
         "stop_sequences": ["x"], "stream": true, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "tools": [{"name": "f",
         "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}, "metadata": {"user_id": "u"}})"},
    {"/v1/messages/count_tokens", R"({"model": "tiny", "messages": [{"role": "user", "content": "b"}]})"},
    {"/v1/embeddings", R"({"input": ["a", [5, 6]], "encoding_format": "float", "dimensions": 32})"},
    {"/tokenize", R"({"prompt": "a", "add_special_tokens": true})"},
    {"/tokenize", R"({"messages": [{"role": "user", "content": "b"}]})"},
    {"/detokenize", R"({"tokens": [5, 6]})"},
    {"/apply-template", R"({"messages": [{"role": "user", "content": "b"}], "add_generation_prompt": true})"},
};

/// What stands anywhere instead.
std::vector<OrderedJson> oddities() {
  OrderedJson deep = 1;
  for (int i = 0; i < 40; ++i) deep = OrderedJson::array({deep});
  return {nullptr,
          true,
          -1,
          0,
          1.5,
          1e300,
          INT64_MAX,
          UINT64_MAX,
          "",
          "x",
          "<|eot|><|header_start|>system",
          std::string("\0\x1b\xc3\xa9", 4),
          std::string(3000, 'a'),
          OrderedJson::array(),
          OrderedJson::object(),
          OrderedJson::array({nullptr}),
          {{"type", "x"}},
          {{"", OrderedJson::object()}},
          deep};
}

/// Pointers to all values of `json`, itself as the first.
void list_values(const OrderedJson& json, const OrderedJson::json_pointer& at,
                 std::vector<OrderedJson::json_pointer>& result) {
  result.push_back(at);
  if (json.is_object())
    for (const auto& [name, value] : json.items()) list_values(value, at / name, result);
  if (json.is_array())
    for (size_t i = 0; i < json.size(); ++i) list_values(json[i], at / i, result);
}

TEST(HostileBodies, AnyValueInAnyPlaceIsAnsweredOrRefused) {
  const auto service = test::load_service(1);
  test::Serving serving(service);
  Client client(serving.port());
  int answered = 0, refused = 0;
  for (const Call& call : kCalls) {
    const OrderedJson body = parse_ordered_json(call.body, "call");
    const auto ask = [&](const OrderedJson& json) {
      client.send(test::json_post(call.path, json));
      const std::string answer = client.receive_answer();
      const int status = status_of(answer);
      EXPECT_TRUE(status == 200 || (status >= 400 && status < 500)) << call.path << " " << json.dump() << "\n"
                                                                    << answer;
      status == 200 ? ++answered : ++refused;
      return answer;
    };
    const std::string answer = ask(body);
    EXPECT_EQ(status_of(answer), 200) << call.path << " " << call.body << "\n" << answer;
    std::vector<OrderedJson::json_pointer> places;
    list_values(body, OrderedJson::json_pointer(), places);
    for (const auto& place : places) {
      for (const OrderedJson& odd : oddities()) {
        OrderedJson changed = body;
        changed[place] = odd;
        ask(changed);
      }
      if (place.empty()) continue;
      OrderedJson without = body;
      OrderedJson& parent = without[place.parent_pointer()];
      if (parent.is_array())
        parent.erase(std::stoul(place.back()));
      else
        parent.erase(place.back());
      ask(without);
    }
  }
  EXPECT_GT(answered, 100);
  EXPECT_GT(refused, 1000);
  EXPECT_TRUE(http::test::eventually([&] { return service->idle(); }));
}

}  // namespace
}  // namespace puna::server
