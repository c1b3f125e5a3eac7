#include "server/result_json.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

namespace puna::server {
namespace {

std::string token_text(const engine::LoadedModel& loaded, engine::TokenId id) {
  return id < loaded.tokenizer->vocab_size() ? std::string(loaded.tokenizer->token_bytes(id)) : std::string();
}

OrderedJson number_or_null(double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); }

OrderedJson chat_entry(const engine::LoadedModel& loaded, engine::TokenId id, double logprob) {
  const std::string text = token_text(loaded, id);
  OrderedJson bytes = OrderedJson::array();
  for (const char c : text) bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return {{"token", text}, {"logprob", number_or_null(logprob)}, {"bytes", std::move(bytes)}};
}

}  // namespace

std::string dump(const OrderedJson& json) { return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace); }

std::string new_id(std::string_view prefix) {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

const char* finish_reason(engine::StopReason reason) {
  using engine::StopReason;
  return reason == StopReason::kStopToken || reason == StopReason::kStopString ? "stop" : "length";
}

OrderedJson usage_json(std::span<const engine::Response> responses) {
  int64_t prompt = 0, cached = 0, generated = 0, drafted = 0, accepted = 0;
  for (const engine::Response& response : responses) {
    prompt += response.completions.at(0).prompt_tokens;
    cached += response.completions.at(0).reused_tokens;
    for (const engine::Generation& one : response.completions) {
      generated += std::ssize(one.tokens);
      drafted += one.drafted_tokens;
      accepted += one.accepted_tokens;
    }
  }
  OrderedJson json = {{"prompt_tokens", prompt},
                      {"completion_tokens", generated},
                      {"total_tokens", prompt + generated},
                      {"prompt_tokens_details", {{"cached_tokens", cached}}}};
  if (drafted > 0) {
    json["completion_tokens_details"] = {{"accepted_prediction_tokens", accepted},
                                         {"rejected_prediction_tokens", drafted - accepted}};
  }
  return json;
}

OrderedJson chat_logprobs(const engine::LoadedModel& loaded, std::span<const engine::Sample> samples) {
  OrderedJson content = OrderedJson::array();
  for (const engine::Sample& sample : samples) {
    OrderedJson entry = chat_entry(loaded, sample.id, sample.logprob);
    entry["top_logprobs"] = OrderedJson::array();
    for (const auto& other : sample.top) entry["top_logprobs"].push_back(chat_entry(loaded, other.id, other.logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

OrderedJson completion_logprobs(const engine::LoadedModel& loaded, std::span<const PlacedToken> tokens,
                                int alternatives, int64_t& offset) {
  OrderedJson texts = OrderedJson::array(), logprobs = texts, tops = texts, offsets = texts;
  for (const PlacedToken& token : tokens) {
    const std::string text = token_text(loaded, token.id);
    texts.push_back(text);
    offsets.push_back(offset);
    offset += std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
    logprobs.push_back(token.sample ? number_or_null(token.sample->logprob) : OrderedJson(nullptr));
    if (!token.sample) {
      tops.push_back(nullptr);
      continue;
    }
    OrderedJson top = OrderedJson::object();
    for (const auto& other : token.sample->top) top[token_text(loaded, other.id)] = number_or_null(other.logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", alternatives > 0 ? std::move(tops) : OrderedJson(nullptr)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace puna::server
