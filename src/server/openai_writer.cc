// Chat completions and completions.
#include <fmt/format.h>

#include "server/answer_writer.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

class OpenAiWriter : public AnswerWriter {
 public:
  explicit OpenAiWriter(AnswerState& state)
      : state_(state), call_(state.call), begun_(state.choices.size()), offsets_(state.choices.size()) {}

  std::string text(size_t choice, std::string_view text) override {
    return first(choice) + piece(choice, {{"content", text}}, text, nullptr);
  }

  std::string call_begun(size_t choice, size_t call) override {
    OrderedJson delta = {{"index", call}};
    delta.update(call_json(state_.choices[choice].calls[call]));
    return first(choice) + call_piece(choice, std::move(delta));
  }

  std::string call_arguments(size_t choice, size_t call, std::string_view text) override {
    return call_piece(choice, {{"index", call}, {"function", {{"arguments", text}}}});
  }

  std::string choice_end(size_t choice) override {
    return first(choice) + piece(choice, OrderedJson::object(), {}, reason_of(choice));
  }

  std::string end() override {
    std::string events;
    if (call_.include_usage) {
      OrderedJson json = envelope(is_chat() ? "chat.completion.chunk" : "text_completion");
      json["choices"] = OrderedJson::array();
      json["usage"] = usage_json(call_, state_.responses);
      events = event(json);
    }
    return events + "data: [DONE]\n\n";
  }

  std::string error(const ApiError& error) override { return event(error.json()); }

  OrderedJson whole() override {
    OrderedJson json = envelope(is_chat() ? "chat.completion" : "text_completion");
    json["choices"] = OrderedJson::array();
    for (size_t i = 0; i < state_.choices.size(); ++i) json["choices"].push_back(whole_choice(i));
    json["usage"] = usage_json(call_, state_.responses);
    return json;
  }

 private:
  bool is_chat() const { return call_.form == CallForm::kChat; }
  static std::string event(const OrderedJson& json) { return "data: " + dump(json) + "\n\n"; }

  OrderedJson envelope(const char* object) const {
    return {{"id", state_.id}, {"object", object}, {"created", state_.created}, {"model", state_.call.model}};
  }

  static OrderedJson call_json(const MadeCall& call) {
    return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
  }

  OrderedJson reason_of(size_t choice) const {
    if (state_.is_cut(choice)) return "length";
    return state_.choices[choice].calls.empty() ? "stop" : "tool_calls";
  }

  // ---- in pieces

  std::string piece(size_t choice, OrderedJson delta, std::string_view text, const OrderedJson& reason) {
    OrderedJson json = {{"index", choice}};
    if (is_chat()) {
      json["delta"] = std::move(delta);
    } else {
      json["text"] = text;
    }
    auto& samples = state_.choices[choice].samples;
    json["logprobs"] = samples.empty() ? OrderedJson(nullptr) : logprobs_of(choice, samples);
    samples.clear();
    json["finish_reason"] = reason;
    OrderedJson chunk = envelope(is_chat() ? "chat.completion.chunk" : "text_completion");
    chunk["choices"] = OrderedJson::array({std::move(json)});
    if (call_.include_usage) chunk["usage"] = nullptr;
    return event(chunk);
  }

  std::string call_piece(size_t choice, OrderedJson delta) {
    return piece(choice, {{"tool_calls", OrderedJson::array({std::move(delta)})}}, {}, nullptr);
  }

  /// What comes before all else of a choice.
  std::string first(size_t choice) {
    if (begun_[choice]) return {};
    begun_[choice] = true;
    const std::vector<engine::Sample> kept = std::exchange(state_.choices[choice].samples, {});
    std::string event;
    if (is_chat()) {
      event = piece(choice, {{"role", "assistant"}, {"content", ""}}, {}, nullptr);
    } else if (call_.echo) {
      event = piece(choice, {}, prompt_text(choice / state_.completions()), nullptr);
    }
    state_.choices[choice].samples = kept;
    return event;
  }

  OrderedJson logprobs_of(size_t choice, std::span<const engine::Sample> samples) {
    const engine::LoadedModel& loaded = state_.service.loaded();
    if (call_.top_logprobs < 0) return nullptr;
    if (is_chat()) return chat_logprobs(loaded, samples);
    std::vector<PlacedToken> tokens;
    for (const engine::Sample& sample : samples) tokens.push_back({sample.id, &sample});
    return completion_logprobs(loaded, tokens, call_.top_logprobs, offsets_[choice]);
  }

  // ---- whole

  std::span<const engine::TokenId> prompt_tokens(size_t prompt) const {
    const std::span<const engine::TokenId> tokens = call_.requests[prompt].prompt.tokens;
    return call_.added_bos[prompt] ? tokens.subspan(1) : tokens;
  }
  std::string prompt_text(size_t prompt) const {
    return state_.service.loaded().tokenizer->decode(prompt_tokens(prompt));
  }

  /// Of the prompt when it is echoed, and of what was generated.
  OrderedJson whole_logprobs(size_t choice) {
    const engine::LoadedModel& loaded = state_.service.loaded();
    const engine::Generation& one = state_.generation(choice);
    if (call_.top_logprobs < 0) return nullptr;
    if (is_chat()) return chat_logprobs(loaded, one.samples);
    std::vector<PlacedToken> tokens;
    if (call_.echo) {
      const size_t prompt = choice / state_.completions();
      const auto ids = prompt_tokens(prompt);
      const size_t skipped = call_.added_bos[prompt] ? 0 : 1;  // samples are of the prompt's tokens from the second on
      for (size_t i = 0; i < ids.size(); ++i)
        tokens.push_back({ids[i], i < skipped ? nullptr : &state_.responses[prompt].prompt_samples.at(i - skipped)});
    }
    for (const engine::Sample& sample : one.samples) tokens.push_back({sample.id, &sample});
    int64_t offset = 0;
    return completion_logprobs(loaded, tokens, call_.top_logprobs, offset);
  }

  OrderedJson whole_choice(size_t index) {
    const Choice& choice = state_.choices[index];
    OrderedJson json = {{"index", index}};
    if (is_chat()) {
      json["message"] = {{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}};
      if (!choice.calls.empty()) {
        if (choice.content.empty()) json["message"]["content"] = nullptr;
        json["message"]["tool_calls"] = OrderedJson::array();
        for (const MadeCall& call : choice.calls) json["message"]["tool_calls"].push_back(call_json(call));
      }
    } else {
      json["text"] = (call_.echo ? prompt_text(index / state_.completions()) : "") + choice.content;
    }
    json["logprobs"] = whole_logprobs(index);
    json["finish_reason"] = reason_of(index);
    return json;
  }

  AnswerState& state_;
  const CompletionCall& call_;
  std::vector<bool> begun_;
  std::vector<int64_t> offsets_;  // characters sent of each choice, for text_offset
};

}  // namespace

std::unique_ptr<AnswerWriter> openai_writer(AnswerState& state) { return std::make_unique<OpenAiWriter>(state); }

}  // namespace puna::server
