// What the answers of each interface hold, whole and streamed: names, order and kinds, without what differs by run.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "io/file.h"
#include "tests/server/serving.h"

namespace puna::server {
namespace {

using http::test::body_of;
using http::test::Client;

/// Words that are part of the interface; other texts and all numbers are replaced.
bool is_fixed(const std::string& name) {
  static const std::set<std::string> kFixed = {"object",      "type",   "role",       "finish_reason",
                                               "stop_reason", "status", "truncation", "tool_choice"};
  return kFixed.contains(name);
}

OrderedJson shape_of(const OrderedJson& json, const std::string& name = "") {
  if (json.is_string()) return is_fixed(name) ? json : OrderedJson("text");
  if (json.is_number()) return 0;
  OrderedJson shape = json;
  // Of /v1/completions: by token.
  if (json.is_object() && name == "top_logprobs" && !json.contains("logprob")) return {{"text", 0}};
  if (json.is_object())
    for (auto& [key, value] : shape.items()) value = shape_of(value, key);
  if (json.is_array()) {
    shape = OrderedJson::array();
    for (const OrderedJson& value : json) {
      const OrderedJson one = shape_of(value, name);
      if (shape.empty() || shape.back() != one) shape.push_back(one);  // how many there are may differ
    }
  }
  return shape;
}

/// One line for an answer, or for each event of a stream; equal ones that follow each other once.
std::string shapes_of(std::string_view body) {
  if (body.starts_with("{")) return shape_of(parse_ordered_json(body, "answer")).dump() + "\n";
  std::string lines, last;
  for (size_t at = 0; at < body.size();) {
    const size_t end = std::min(body.find('\n', at), body.size());
    std::string line(body.substr(at, end - at));
    at = end + 1;
    if (line.starts_with("data: {")) line = "data: " + shape_of(parse_ordered_json(line.substr(6), "event")).dump();
    if (line.empty()) continue;
    // The event's name and its data.
    if (line.starts_with("event: ")) {
      const size_t data_end = std::min(body.find('\n', at), body.size());
      line += " " + shape_of(parse_ordered_json(body.substr(at + 6, data_end - at - 6), "event")).dump();
      at = data_end + 1;
    }
    if (line != last) lines += line + "\n";
    last = line;
  }
  return lines;
}

std::string answers() {
  const auto service = test::load_service(1);
  test::Serving serving(service);
  Client client(serving.port());
  std::string all;
  const auto ask = [&](const char* path, OrderedJson body) {
    all += fmt::format("{} {}\n", path, body.dump());
    client.send(test::json_post(path, body));
    all += shapes_of(body_of(client.receive_answer())) + "\n";
  };
  const OrderedJson messages = OrderedJson::array({{{"role", "user"}, {"content", "hello"}}});
  const OrderedJson parameters = {{"type", "object"},
                                  {"properties", {{"a", {{"enum", {1}}}}}},
                                  {"required", {"a"}},
                                  {"additionalProperties", false}};
  for (const bool stream : {false, true}) {
    OrderedJson chat = {
        {"messages", messages}, {"max_tokens", 6}, {"seed", 1}, {"ignore_eos", true}, {"stream", stream}};
    if (stream) chat["stream_options"] = {{"include_usage", true}};
    ask("/v1/chat/completions", chat);
    chat["logprobs"] = true;
    chat["top_logprobs"] = 1;
    ask("/v1/chat/completions", chat);
    OrderedJson tools = {{"messages", messages}, {"max_tokens", 400}, {"seed", 1}, {"stream", stream}};
    tools["tools"] = {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", parameters}}}}};
    tools["tool_choice"] = "required";
    ask("/v1/chat/completions", tools);
    ask("/v1/completions", {{"prompt", "hello"},
                            {"max_tokens", 4},
                            {"seed", 1},
                            {"echo", !stream},
                            {"logprobs", 1},
                            {"ignore_eos", true},
                            {"stream", stream}});
    ask("/v1/responses", {{"input", "hello"}, {"max_output_tokens", 16}, {"temperature", 0}, {"stream", stream}});
    ask("/v1/responses", {{"input", "hello"},
                          {"max_output_tokens", 400},
                          {"seed", 1},
                          {"tools", {{{"type", "function"}, {"name", "f"}, {"parameters", parameters}}}},
                          {"tool_choice", "required"},
                          {"stream", stream}});
    ask("/v1/messages",
        {{"model", "tiny"}, {"messages", messages}, {"max_tokens", 6}, {"temperature", 0}, {"stream", stream}});
    ask("/v1/messages", {{"model", "tiny"},
                         {"messages", messages},
                         {"max_tokens", 400},
                         {"seed", 1},
                         {"tools", {{{"name", "f"}, {"input_schema", parameters}}}},
                         {"tool_choice", {{"type", "any"}}},
                         {"stream", stream}});
  }
  ask("/v1/messages/count_tokens", {{"model", "tiny"}, {"messages", messages}});
  ask("/v1/embeddings", {{"input", "hello"}});
  ask("/tokenize", {{"prompt", "hello"}});
  ask("/detokenize", {{"tokens", {5}}});
  ask("/apply-template", {{"messages", messages}});
  ask("/v1/chat/completions", {{"messages", 1}});
  ask("/v1/messages", {{"messages", 1}});
  for (const char* path : {"/health", "/v1/models", "/tokenizer_info", "/requests"}) {
    client.send(http::test::get(path));
    all += fmt::format("{}\n{}\n", path, shapes_of(body_of(client.receive_answer())));
  }
  return all;
}

TEST(Shapes, OfAllAnswersAreAsTheyWere) {
  const std::filesystem::path file = std::filesystem::path(PUNA_SOURCE_DIR) / "tests/server/shapes.txt";
  const std::string now = answers();
  if (std::getenv("PUNA_UPDATE_GOLDEN")) {
    io::write_file(file, now);
    return;
  }
  EXPECT_EQ(now, io::read_file(file, 1 << 20)) << "if this is meant, run with PUNA_UPDATE_GOLDEN=1";
}

}  // namespace
}  // namespace puna::server
