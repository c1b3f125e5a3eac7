// Answers of /v1/responses: items, and the events by which they come.
#include "server/answer_writer.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

class ResponsesWriter : public AnswerWriter {
 public:
  explicit ResponsesWriter(AnswerState& state) : state_(state), call_(state.call) {}

  std::string begin() override {
    const OrderedJson response = envelope("in_progress");
    std::string events = event("response.created", {{"response", response}});  // one after the other: they are numbered
    events += event("response.in_progress", {{"response", response}});
    return events;
  }

  std::string text(size_t, std::string_view text) override {
    std::string events = open_text();
    content_ += text;
    OrderedJson delta = place({{"content_index", 0}, {"delta", text}, {"logprobs", take_logprobs()}});
    return events + event("response.output_text.delta", std::move(delta));
  }

  std::string call_begun(size_t choice, size_t call) override {
    const MadeCall& made = state_.choices[choice].calls[call];
    std::string events = close();
    state_.choices[0].samples.clear();  // the call's tokens have no place
    events += open({{"type", "function_call"}, {"arguments", ""}, {"call_id", made.id}, {"name", made.name}}, "fc_");
    open_ = Open::kCall;
    call_index_ = call;
    return events;
  }

  std::string call_arguments(size_t, size_t, std::string_view piece) override {
    return event("response.function_call_arguments.delta", place({{"delta", piece}}));
  }

  std::string choice_end(size_t) override {
    std::string events;
    if (open_ == Open::kNothing && output_.empty()) events = open_text();  // an answer without a word
    events += close(is_cut() ? "incomplete" : "completed");
    return events;
  }

  std::string end() override {
    OrderedJson response = finished(std::move(output_));
    const bool whole = response["status"] == "completed";
    return event(whole ? "response.completed" : "response.incomplete", {{"response", std::move(response)}});
  }

  std::string error(const ApiError& error) override {
    OrderedJson response = envelope("failed");
    response["error"] = {{"code", error.status == 429 ? "rate_limit_exceeded" : "server_error"},
                         {"message", error.what()}};
    return event("response.failed", {{"response", std::move(response)}});
  }

  OrderedJson whole() override {
    OrderedJson output = OrderedJson::array();
    const Choice& choice = state_.choices[0];
    if (!choice.content.empty() || choice.calls.empty()) {
      OrderedJson logprobs = OrderedJson::array();
      if (call_.top_logprobs >= 0)
        logprobs = chat_logprobs(state_.service.loaded(), state_.generation(0).samples)["content"];
      output.push_back(message_item(new_id("msg_"), choice.content, logprobs, last_status(choice.calls.empty())));
    }
    for (const MadeCall& call : choice.calls)
      output.push_back(call_item(new_id("fc_"), call, last_status(&call == &choice.calls.back())));
    return finished(std::move(output));
  }

 private:
  enum class Open { kNothing, kText, kCall };

  std::string event(const char* type, OrderedJson fields) {
    OrderedJson json = {{"type", type}, {"sequence_number", number_++}};
    json.update(fields);
    return std::string("event: ") + type + "\ndata: " + dump(json) + "\n\n";
  }

  /// Fields of an event of the open item.
  OrderedJson place(OrderedJson fields) const {
    OrderedJson json = {{"item_id", item_id_}, {"output_index", output_.size()}};
    json.update(fields);
    return json;
  }

  static OrderedJson text_part(std::string_view text, const OrderedJson& logprobs) {
    return {{"type", "output_text"},
            {"text", text},
            {"annotations", OrderedJson::array()},
            {"logprobs", logprobs.is_null() ? OrderedJson::array() : logprobs}};
  }

  bool is_cut() const { return state_.is_cut(0); }
  const char* last_status(bool last) const { return last && is_cut() ? "incomplete" : "completed"; }

  /// Of the tokens since the last time.
  OrderedJson take_logprobs() {
    auto& samples = state_.choices[0].samples;
    OrderedJson taken = OrderedJson::array();
    if (!samples.empty()) taken = chat_logprobs(state_.service.loaded(), samples)["content"];
    for (const OrderedJson& entry : taken) logprobs_.push_back(entry);
    samples.clear();
    return taken;
  }

  std::string open_text() {
    if (open_ == Open::kText) return {};
    std::string events = close();
    events += open({{"type", "message"}, {"content", OrderedJson::array()}, {"role", "assistant"}}, "msg_");
    open_ = Open::kText;
    events += event("response.content_part.added", place({{"content_index", 0}, {"part", text_part("", nullptr)}}));
    return events;
  }

  static OrderedJson message_item(const std::string& id, std::string_view text, const OrderedJson& logprobs,
                                  const char* status) {
    return {{"id", id},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", OrderedJson::array({text_part(text, logprobs)})}};
  }

  static OrderedJson call_item(const std::string& id, const MadeCall& call, const char* status) {
    return {{"id", id},           {"type", "function_call"}, {"status", status}, {"arguments", call.arguments},
            {"call_id", call.id}, {"name", call.name}};
  }

  std::string open(OrderedJson fields, const char* prefix) {
    item_id_ = new_id(prefix);
    OrderedJson item = {{"id", item_id_}, {"status", "in_progress"}};
    item.update(fields);
    return event("response.output_item.added", {{"output_index", output_.size()}, {"item", std::move(item)}});
  }

  std::string close(const char* status = "completed") {
    std::string events;
    OrderedJson item;
    if (open_ == Open::kText) {
      take_logprobs();  // of tokens without a text
      events = event("response.output_text.done",
                     place({{"content_index", 0}, {"text", content_}, {"logprobs", logprobs_}}));
      events +=
          event("response.content_part.done", place({{"content_index", 0}, {"part", text_part(content_, logprobs_)}}));
      item = message_item(item_id_, content_, logprobs_, status);
      content_.clear();
      logprobs_ = OrderedJson::array();
    } else if (open_ == Open::kCall) {
      const MadeCall& call = state_.choices[0].calls[call_index_];
      events =
          event("response.function_call_arguments.done", place({{"name", call.name}, {"arguments", call.arguments}}));
      item = call_item(item_id_, call, status);
    }
    if (std::exchange(open_, Open::kNothing) == Open::kNothing) return {};
    events += event("response.output_item.done", {{"output_index", output_.size()}, {"item", item}});
    output_.push_back(std::move(item));
    return events;
  }

  OrderedJson envelope(const char* status) const {
    OrderedJson json = {{"id", state_.id},
                        {"object", "response"},
                        {"created_at", state_.created},
                        {"status", status},
                        {"error", nullptr},
                        {"incomplete_details", nullptr},
                        {"model", state_.call.model},
                        {"output", OrderedJson::array()}};
    json.update(call_.echoed);
    json["usage"] = nullptr;
    return json;
  }

  OrderedJson finished(OrderedJson output) const {
    const bool cut = is_cut();
    OrderedJson json = envelope(cut ? "incomplete" : "completed");
    if (cut) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json["output"] = std::move(output);
    const Usage usage = usage_of(state_.responses);
    json["usage"] = {{"input_tokens", usage.prompt},
                     {"input_tokens_details", {{"cached_tokens", usage.cached}}},
                     {"output_tokens", usage.generated},
                     {"output_tokens_details", {{"reasoning_tokens", 0}}},
                     {"total_tokens", usage.prompt + usage.generated}};
    OrderedJson images = OrderedJson::array();
    if (const int64_t tokens = image_costs(call_, images); tokens > 0) {
      json["usage"]["input_tokens_details"]["image_tokens"] = tokens;
      json["usage"]["input_tokens_details"]["images"] = std::move(images);
    }
    return json;
  }

  AnswerState& state_;
  const CompletionCall& call_;
  int64_t number_ = 0;
  Open open_ = Open::kNothing;
  std::string item_id_, content_;  // of the open item
  OrderedJson logprobs_ = OrderedJson::array();
  size_t call_index_ = 0;
  OrderedJson output_ = OrderedJson::array();  // items that are done
};

}  // namespace

std::unique_ptr<AnswerWriter> responses_writer(AnswerState& state) { return std::make_unique<ResponsesWriter>(state); }

}  // namespace puna::server
