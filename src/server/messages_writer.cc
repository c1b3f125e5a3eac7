// Answers of /v1/messages: blocks of content, and the events by which they come.
#include "base/error.h"
#include "server/answer_writer.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

class MessagesWriter : public AnswerWriter {
 public:
  explicit MessagesWriter(AnswerState& state) : state_(state) {}

  std::string begin() override {
    OrderedJson message = envelope();
    message["usage"] = {{"input_tokens", state_.call.requests[0].prompt.tokens.size()}, {"output_tokens", 0}};
    return event({{"type", "message_start"}, {"message", std::move(message)}});
  }

  std::string text(size_t, std::string_view text) override {
    std::string events;
    if (!in_text_) {
      events = close();
      events += open({{"type", "text"}, {"text", ""}});
      in_text_ = true;
    }
    return events + delta({{"type", "text_delta"}, {"text", text}});
  }

  std::string call_begun(size_t choice, size_t call) override {
    const MadeCall& made = state_.choices[choice].calls[call];
    std::string events = close();  // before open(): the next block has the next number
    events += open({{"type", "tool_use"}, {"id", made.id}, {"name", made.name}, {"input", OrderedJson::object()}});
    return events;
  }

  std::string call_arguments(size_t, size_t, std::string_view piece) override {
    return delta({{"type", "input_json_delta"}, {"partial_json", piece}});
  }

  std::string choice_end(size_t) override { return close(); }

  std::string end() override {
    OrderedJson ended = ending();
    return event({{"type", "message_delta"}, {"delta", std::move(ended)}, {"usage", usage()}}) +
           event({{"type", "message_stop"}});
  }

  std::string error(const ApiError& error) override { return event(error.json(ErrorForm::kAnthropic)); }

  OrderedJson whole() override {
    const Choice& choice = state_.choices[0];
    OrderedJson json = envelope();
    if (!choice.content.empty()) json["content"].push_back({{"type", "text"}, {"text", choice.content}});
    for (const MadeCall& call : choice.calls)
      json["content"].push_back(
          {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", input_of(call.arguments)}});
    json.update(ending());
    json["usage"] = usage();
    return json;
  }

 private:
  static std::string event(const OrderedJson& json) {
    return "event: " + json["type"].get<std::string>() + "\ndata: " + dump(json) + "\n\n";
  }
  std::string delta(OrderedJson json) const {
    return event({{"type", "content_block_delta"}, {"index", block_}, {"delta", std::move(json)}});
  }

  std::string open(OrderedJson block) {
    ++block_;
    open_ = true;
    return event({{"type", "content_block_start"}, {"index", block_}, {"content_block", std::move(block)}});
  }

  std::string close() {
    in_text_ = false;
    if (!std::exchange(open_, false)) return {};
    return event({{"type", "content_block_stop"}, {"index", block_}});
  }

  /// A call that was cut has no whole object.
  static OrderedJson input_of(const std::string& arguments) {
    try {
      OrderedJson input = parse_ordered_json(arguments, "arguments");
      if (input.is_object()) return input;
    } catch (const Error&) {
    }
    return OrderedJson::object();
  }

  OrderedJson envelope() const {
    return {{"id", state_.id},
            {"type", "message"},
            {"role", "assistant"},
            {"model", state_.call.model},
            {"content", OrderedJson::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr}};
  }

  OrderedJson ending() const {
    const engine::Generation& one = state_.generation(0);
    const bool at_string = one.reason == engine::StopReason::kStopString;
    const char* reason = state_.is_cut(0)                   ? "max_tokens"
                         : !state_.choices[0].calls.empty() ? "tool_use"
                         : at_string                        ? "stop_sequence"
                                                            : "end_turn";
    return {{"stop_reason", reason}, {"stop_sequence", at_string ? OrderedJson(one.stop) : OrderedJson(nullptr)}};
  }

  /// Tokens from the cache are not among input_tokens there.
  OrderedJson usage() const {
    const Usage usage = usage_of(state_.responses);
    OrderedJson json = {{"input_tokens", usage.prompt - usage.cached},
                        {"cache_creation_input_tokens", 0},
                        {"cache_read_input_tokens", usage.cached},
                        {"output_tokens", usage.generated}};
    OrderedJson images = OrderedJson::array();
    if (const int64_t tokens = image_costs(state_.call, images); tokens > 0) {
      json["image_tokens"] = tokens;
      json["images"] = std::move(images);
    }
    return json;
  }

  AnswerState& state_;
  int64_t block_ = -1;
  bool open_ = false, in_text_ = false;
};

}  // namespace

std::unique_ptr<AnswerWriter> messages_writer(AnswerState& state) { return std::make_unique<MessagesWriter>(state); }

}  // namespace puna::server
