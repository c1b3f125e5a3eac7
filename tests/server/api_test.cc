// The server over a tiny model, all in this process: many clients at once that stream, leave, ask wrongly, load
// adapters and see the model replaced. What a thread sanitizer is to look at.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/server/serving.h"

namespace puna::server {
namespace {

using http::test::body_of;
using http::test::Client;
using http::test::status_of;
using test::completion;
using test::json_post;
using test::load_service;
using test::Serving;

std::string text_of(Client& client, const OrderedJson& body) {
  client.send(json_post("/v1/completions", body));
  const std::string answer = client.receive_answer();
  EXPECT_EQ(status_of(answer), 200) << answer;
  return parse_ordered_json(body_of(answer), "answer")["choices"][0]["text"];
}

/// The first choice in each event of a stream that is whole.
std::vector<OrderedJson> streamed_choices(std::string_view events) {
  EXPECT_TRUE(events.ends_with("data: [DONE]\n\n")) << events;
  std::vector<OrderedJson> choices;
  for (size_t at = 0; (at = events.find("data: {", at)) != std::string_view::npos; ++at) {
    const std::string_view json = events.substr(at + 6, events.find('\n', at) - at - 6);
    choices.push_back(parse_ordered_json(json, "event")["choices"][0]);
  }
  return choices;
}

std::string streamed_text(std::string_view events) {
  std::string text;
  for (const OrderedJson& choice : streamed_choices(events)) text += choice["text"].get<std::string>();
  return text;
}

checkpoint::Adapter adapter() {
  return {"a", {{"model.layers.0.self_attn.q_proj.weight", at::ones({2, 32}), at::ones({32, 2}), 0.5}}};
}

TEST(Api, ManyClientsAtOnceGetWhatOneGets) {
  const auto service = load_service(1);
  Serving serving(service);
  std::vector<std::string> expected;
  {
    Client client(serving.port());
    for (int i = 0; i < 4; ++i) expected.push_back(text_of(client, completion(fmt::format("prompt {}", i), 12, false)));
  }
  std::vector<std::jthread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      Client client(serving.port());
      for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(text_of(client, completion(fmt::format("prompt {}", i % 4), 12, false)), expected[i % 4]);
        client.send(json_post("/v1/completions", completion(fmt::format("prompt {}", i % 4), 12, true)));
        const std::string streamed = body_of(client.receive_answer());
        EXPECT_TRUE(streamed.ends_with("data: [DONE]\n\n")) << streamed;
        client.send(http::test::get(round == 0 ? "/metrics" : "/requests"));
        EXPECT_EQ(status_of(client.receive_answer()), 200);
        client.send(json_post("/v1/completions", {{"prompt", 7}}));
        EXPECT_EQ(status_of(client.receive_answer()), 400);
        client.send(json_post("/v1/embeddings", {{"input", {"one", "two"}}}));
        EXPECT_EQ(status_of(client.receive_answer()), 200);
      }
    });
  }
  clients.clear();  // waits for them
  EXPECT_TRUE(http::test::eventually([&] { return service->idle(); }));
}

TEST(Api, ClientsThatLeaveFreeTheirPlaces) {
  const auto service = load_service(1, 8);
  Serving serving(service);
  for (int round = 0; round < 5; ++round) {
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 8; ++i) {
      clients.push_back(std::make_unique<Client>(serving.port()));
      clients.back()->send(json_post("/v1/completions", completion("for ever", 4000, true)));
    }
    for (auto& client : clients) client->receive_until("data: {");
    const int64_t before = service->engine().stats().generated_tokens;
    for (auto& client : clients) client->reset();
    EXPECT_TRUE(http::test::eventually([&] { return service->idle(); }));
    EXPECT_LT(service->engine().stats().generated_tokens - before, 8 * 2000) << "of about 8 * 4000 that were asked for";
  }
}

/// About 5 MB of log-probabilities.
OrderedJson much() {
  OrderedJson body = {{"messages", {{{"role", "user"}, {"content", "list"}}}}, {"max_tokens", 3500}, {"stream", true}};
  body.update({{"temperature", 0}, {"ignore_eos", true}, {"logprobs", true}, {"top_logprobs", 20}});
  return body;
}

TEST(Api, AnswersWaitForClientsThatDoNotReadAndComeWhole) {
  const auto service = load_service(1);
  Serving serving(service);
  Client slow(serving.port(), "127.0.0.1", 4096), other(serving.port());
  slow.send(json_post("/v1/chat/completions", much()));
  int64_t generated = -1;
  EXPECT_TRUE(http::test::eventually([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const int64_t now = service->engine().stats().generated_tokens;
    return now > 0 && std::exchange(generated, now) == now;
  }));
  EXPECT_LT(generated, 3000) << "it went on for a client that reads nothing";
  EXPECT_FALSE(text_of(other, completion("go on", 8, false)).empty());
  const std::string answer = slow.receive_answer();
  EXPECT_GT(answer.size(), size_t{4} << 20);
  EXPECT_TRUE(body_of(answer).ends_with("data: [DONE]\n\n"));
}

// Long names and long echoes would be kept for as long as a request runs.
TEST(Api, WhatIsSaidAgainOfARequestIsBounded) {
  Serving serving(load_service(1));
  Client client(serving.port());
  OrderedJson body = {{"input", "say"}, {"max_output_tokens", 1}, {"odd", 1}, {std::string(1000, 'n'), 1}};
  for (int i = 0; i < 1000; ++i) body[fmt::format("unknown{}", i)] = i;
  body["metadata"] = {{"kept", "short"}};
  body["user"] = std::string(100'000, 'u');
  client.send(json_post("/v1/responses", body));
  const std::string answer = client.receive_answer();
  EXPECT_EQ(status_of(answer), 200) << answer;
  EXPECT_NE(answer.find("X-Puna-Ignored: odd, unknown0"), std::string::npos);
  const OrderedJson json = parse_ordered_json(body_of(answer), "answer");
  EXPECT_EQ(json["metadata"]["kept"], "short");
  EXPECT_TRUE(json["user"].is_null());
}

TEST(Api, GrammarsAreCompiledWhereTheyHoldUpNoSmallRequest) {
  const auto service = load_service(1);
  const auto place = service->take_place();
  const auto compile = [&] { return service->grammar(Service::GrammarKind::kGbnf, R"(root ::= "a")", *place); };
  EXPECT_THROW(compile(), Service::LargeWork);
  place->in_large_lane = true;
  const auto compiled = compile();
  place->in_large_lane = false;
  EXPECT_EQ(compile(), compiled) << "known by now";
}

TEST(Api, PicturesOfAllRequestsTogetherAreBounded) {
  const auto service = load_service(1);
  const auto first = service->take_place(), second = service->take_place();
  first->count_pictures(int64_t{3} << 30);  // alone it may
  EXPECT_THROW(second->count_pictures(1), ApiError);
  second->release();
  first->release();
  const auto third = service->take_place();
  third->count_pictures(1);
}

TEST(Api, TextBeforeACallIsStreamedAndTheCallIsNot) {
  Serving serving(load_service(1));
  Client client(serving.port());
  OrderedJson body = {{"messages", {{{"role", "user"}, {"content", "call"}}}}, {"max_tokens", 100}, {"stream", true}};
  body["tools"] = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
  body["grammar"] = R"(root ::= "Let me see. [f(a=\"x\")]")";
  client.send(json_post("/v1/chat/completions", body));
  std::string content, name, arguments, reason;
  for (const OrderedJson& choice : streamed_choices(body_of(client.receive_answer()))) {
    const OrderedJson& delta = choice["delta"];
    if (delta.contains("content") && delta["content"].is_string()) content += delta["content"].get<std::string>();
    if (choice["finish_reason"].is_string()) reason = choice["finish_reason"];
    if (!delta.contains("tool_calls")) continue;
    const OrderedJson& function = delta["tool_calls"][0]["function"];
    if (function.contains("name")) name += function["name"].get<std::string>();
    if (function.contains("arguments")) arguments += function["arguments"].get<std::string>();
  }
  EXPECT_TRUE(content == "Let me see. " || content == "Let me see.") << content;
  EXPECT_EQ(name, "f");
  EXPECT_EQ(parse_ordered_json(arguments, "arguments"), (OrderedJson{{"a", "x"}}));
  EXPECT_EQ(reason, "tool_calls");
}

TEST(Api, StopIdsStop) {
  Serving serving(load_service(1));
  Client client(serving.port());
  OrderedJson body = completion("say", 5, false);
  body["logit_bias"] = {{"65", 100}};
  const auto choice = [&] {
    client.send(json_post("/v1/completions", body));
    return parse_ordered_json(body_of(client.receive_answer()), "answer")["choices"][0];
  };
  EXPECT_EQ(choice()["finish_reason"], "length");
  body["stop_token_ids"] = {65};
  EXPECT_EQ(choice()["finish_reason"], "stop");
  EXPECT_EQ(choice()["text"], "");
}

TEST(Api, AnswersCountAsPlaces) {
  const auto service = load_service(1, 8);
  Serving serving(service);
  Client client(serving.port());
  const auto ask = [&](int n) {
    OrderedJson body = completion("some", 1, false);
    body["n"] = n;
    client.send(json_post("/v1/completions", body));
    return status_of(client.receive_answer());
  };
  auto place = service->take_place();
  place->count_answers(6);
  EXPECT_EQ(ask(2), 200);
  EXPECT_EQ(ask(3), 429);
  EXPECT_EQ(ask(2), 200) << "one that was refused takes nothing from others";
  place->count_answers(8);
  EXPECT_EQ(ask(1), 429);
  place.reset();
  EXPECT_TRUE(http::test::eventually([&] { return service->idle(); }));
  EXPECT_EQ(ask(16), 200) << "alone it may have more";
}

/// The answer to a body that is wrong.
OrderedJson refused(Client& client, std::string_view path, const OrderedJson& body, int status,
                    std::string_view fields = "") {
  client.send(http::test::post(path, body.dump(), fmt::format("Content-Type: application/json\r\n{}", fields)));
  const std::string answer = client.receive_answer();
  EXPECT_EQ(status_of(answer), status) << answer;
  return parse_ordered_json(body_of(answer), "answer")["error"];
}

TEST(Api, WhatCannotBeIsTheClientsMistake) {
  Serving serving(load_service(1));
  Client client(serving.port());
  OrderedJson many = completion("list", 1000, false);
  many["logprobs"] = 20;
  many["n"] = 128;
  EXPECT_EQ(refused(client, "/v1/completions", many, 400)["param"], "logprobs");
  EXPECT_EQ(refused(client, "/v1/completions", completion("a", 1, false), 415, "Content-Encoding: gzip\r\n")["type"],
            "invalid_request_error");
  OrderedJson none = completion("none is left", 2, false);
  none["grammar"] = R"(root ::= "a")";
  for (int id = 0; id < 256; ++id) none["logit_bias"][std::to_string(id)] = -100;
  EXPECT_EQ(refused(client, "/v1/completions", none, 400)["type"], "invalid_request_error");
  const OrderedJson picture = {{"type", "image_url"}, {"image_url", {{"url", "data:image/png;base64,AAAA"}}}};
  const OrderedJson messages = {{{"role", "user"}, {"content", {picture}}}};
  EXPECT_EQ(refused(client, "/v1/chat/completions", {{"messages", messages}}, 400)["param"], "messages");
}

TEST(Api, ACallThatIsCutIsNotCalledWhole) {
  Serving serving(load_service(1));
  Client client(serving.port());
  const auto reason = [&](const char* grammar) {
    OrderedJson body = {{"messages", {{{"role", "user"}, {"content", "call"}}}}, {"max_tokens", 100}};
    body["tools"] = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
    body["grammar"] = grammar;
    client.send(json_post("/v1/chat/completions", body));
    return parse_ordered_json(body_of(client.receive_answer()), "answer")["choices"][0];
  };
  EXPECT_EQ(reason(R"(root ::= "[f(a=\"x\")]")")["finish_reason"], "tool_calls");
  const OrderedJson cut = reason(R"(root ::= "[f(a=\"x\"")");
  EXPECT_EQ(cut["message"]["tool_calls"].size(), 1u) << cut;
  EXPECT_EQ(cut["finish_reason"], "length");
}

TEST(Api, PromptsAreShownWithTheirTools) {
  Serving serving(load_service(1));
  Client client(serving.port());
  OrderedJson body = {{"messages", {{{"role", "user"}, {"content", "call"}}}}, {"other", 1}};
  body["tools"] = {{{"type", "function"}, {"function", {{"name", "shown_tool"}}}}};
  client.send(json_post("/apply-template", body));
  const std::string answer = client.receive_answer();
  EXPECT_NE(answer.find("shown_tool"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\r\nX-Puna-Ignored: other\r\n"), std::string::npos) << answer;
  const auto count = [&](bool header) {
    body["add_generation_prompt"] = header;
    client.send(json_post("/tokenize", body));
    return parse_ordered_json(body_of(client.receive_answer()), "answer")["count"].get<int>();
  };
  EXPECT_GT(count(true), count(false));
}

TEST(Api, BodiesOfStrangersAreNotRead) {
  ApiOptions options = Serving::options();
  options.loopback = true;
  const Api api(load_service(1), std::move(options));
  http::Request request;
  request.headers["host"] = "localhost";
  EXPECT_TRUE(api.takes_body(request));
  request.headers["origin"] = "https://elsewhere.example";
  EXPECT_FALSE(api.takes_body(request));
  request.headers.erase("origin");
  request.headers["host"] = "elsewhere.example";
  EXPECT_FALSE(api.takes_body(request));
}

TEST(Api, AdaptersComeAndGoUnderLoad) {
  const auto service = load_service(1);
  Serving serving(service);
  const std::jthread loader([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto held = service->engine().add_adapter(adapter());
      std::this_thread::yield();
    }
  });
  Client client(serving.port());
  const std::string expected = text_of(client, completion("steady", 12, false));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(text_of(client, completion("steady", 12, false)), expected);
}

TEST(Api, TheModelIsReplacedWhileAnswersRun) {
  Serving serving(load_service(1));
  std::vector<std::shared_ptr<Service>> former;
  Client running(serving.port()), client(serving.port());
  const std::string before = text_of(client, completion("who", 12, false));
  const std::string long_before = text_of(client, completion("long", 400, false));
  running.send(json_post("/v1/completions", completion("long", 400, true)));
  running.receive_until("data: {");
  former.push_back(serving.api().replace(load_service(2)));
  const std::string after = text_of(client, completion("who", 12, false));
  EXPECT_NE(after, before);
  EXPECT_EQ(streamed_text(body_of(running.receive_answer())), long_before);
  EXPECT_TRUE(http::test::eventually([&] { return former[0]->idle() && former[0].use_count() == 1; }));
  former.clear();
  EXPECT_EQ(text_of(client, completion("who", 12, false)), after);
}

}  // namespace
}  // namespace puna::server
