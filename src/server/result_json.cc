#include "server/result_json.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "text/utf8.h"

namespace puna::server {
namespace {

std::string token_text(const engine::LoadedModel& loaded, engine::TokenId id) {
  return id < loaded.tokenizer->vocab_size() ? std::string(loaded.tokenizer->token_bytes(id)) : std::string();
}

bool is_utf8(std::string_view text) { return text::valid_utf8_prefix(text) == text.size(); }

/// Bytes as OpenAI writes those of a token that is no text by itself: "\\xe2\\x80".
std::string escaped(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

/// Unlike U+FFFD, different for different tokens: they are keys of objects.
std::string completion_token(const std::string& bytes) { return is_utf8(bytes) ? bytes : "bytes:" + escaped(bytes); }

OrderedJson number_or_null(double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); }

OrderedJson chat_entry(const engine::LoadedModel& loaded, engine::TokenId id, double logprob) {
  const std::string text = token_text(loaded, id);
  OrderedJson bytes = OrderedJson::array();
  for (const char c : text) bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return {{"token", is_utf8(text) ? text : escaped(text)},
          {"logprob", number_or_null(logprob)},
          {"bytes", std::move(bytes)}};
}

}  // namespace

std::string dump(const OrderedJson& json) { return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace); }

void tell_ignored(http::Reply& reply, const std::vector<std::string>& names) {
  constexpr size_t kMostBytes = 1000;
  std::string shown;
  for (const std::string& name : names) {
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return c < 0x80 && (std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.');
    });
    if (plain && shown.size() + name.size() < kMostBytes) shown += (shown.empty() ? "" : ", ") + name;
  }
  if (!shown.empty()) reply.headers.emplace_back("X-Puna-Ignored", shown);
}

std::string new_id(std::string_view prefix) {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::array<uint8_t, 24> random;  // nobody can guess one
  PUNA_CHECK(getrandom(random.data(), random.size(), 0) == std::ssize(random), "the system gives no random numbers");
  std::string id(prefix);
  for (const uint8_t byte : random) id += kLetters[byte % kLetters.size()];
  return id;
}

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Usage usage_of(std::span<const engine::Response> responses) {
  Usage usage;
  for (const engine::Response& response : responses) {
    usage.prompt += response.completions.at(0).prompt_tokens;
    usage.cached += response.completions.at(0).reused_tokens;
    for (const engine::Generation& one : response.completions) {
      usage.generated += std::ssize(one.tokens);
      usage.drafted += one.drafted_tokens;
      usage.accepted += one.accepted_tokens;
    }
  }
  return usage;
}

int64_t image_costs(const CompletionCall& call, OrderedJson& images) {
  int64_t sum = 0;
  for (const text::ImageTiles& tiles : call.images) {
    // Start, tiles with what stands behind each of several, the mark before the whole picture, end.
    const int64_t several = tiles.rows * tiles.columns > 1 ? tiles.rows * tiles.columns : 0;
    const int64_t tokens = int64_t{tiles.num_tiles()} * tiles.tokens_per_tile + several + 3;
    images.push_back({{"tokens", tokens}, {"rows", tiles.rows}, {"columns", tiles.columns}});
    sum += tokens;
  }
  return sum;
}

OrderedJson usage_json(const CompletionCall& call, std::span<const engine::Response> responses) {
  const Usage usage = usage_of(responses);
  OrderedJson json = {{"prompt_tokens", usage.prompt},
                      {"completion_tokens", usage.generated},
                      {"total_tokens", usage.prompt + usage.generated},
                      {"prompt_tokens_details", {{"cached_tokens", usage.cached}}}};
  OrderedJson images = OrderedJson::array();
  if (const int64_t tokens = image_costs(call, images); tokens > 0) {
    json["prompt_tokens_details"]["image_tokens"] = tokens;
    json["prompt_tokens_details"]["images"] = std::move(images);
  }
  if (usage.drafted > 0) {
    json["completion_tokens_details"] = {{"accepted_prediction_tokens", usage.accepted},
                                         {"rejected_prediction_tokens", usage.drafted - usage.accepted}};
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
    texts.push_back(completion_token(text));
    offsets.push_back(offset);
    offset += std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
    logprobs.push_back(token.sample ? number_or_null(token.sample->logprob) : OrderedJson(nullptr));
    if (!token.sample) {
      tops.push_back(nullptr);
      continue;
    }
    OrderedJson top = OrderedJson::object();
    for (const auto& other : token.sample->top)
      top[completion_token(token_text(loaded, other.id))] = number_or_null(other.logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", alternatives > 0 ? std::move(tops) : OrderedJson(nullptr)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace puna::server
