#include "server/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "arch/layer_plan.h"
#include "server/api_error.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr size_t kMostUnsent = size_t{4} << 20;  // bytes; a client that reads no more than that is given up

/// In a header: names of letters, digits, "_", "-" and ".", as many as fit.
std::string shown_names(const std::vector<std::string>& names) {
  constexpr size_t kMostBytes = 1000;
  std::string shown;
  for (const std::string& name : names) {
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return c < 0x80 && (std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.');
    });
    if (plain && shown.size() + name.size() < kMostBytes) shown += (shown.empty() ? "" : ", ") + name;
  }
  return shown;
}

double seconds_since(engine::Clock::time_point then) {
  return std::chrono::duration<double>(engine::Clock::now() - then).count();
}

/// One call on its way. What the engine's thread calls is never called by two threads at once; the mutex is for the
/// time before all requests are submitted.
class Answer : public std::enable_shared_from_this<Answer> {
 public:
  Answer(CompletionCall call, Service& service, std::shared_ptr<Service::Place> place,
         std::shared_ptr<http::Exchange> exchange)
      : call_(std::move(call)),
        service_(service),
        place_(std::move(place)),
        exchange_(std::move(exchange)),
        id_(new_id(call_.chat ? "chatcmpl-" : "cmpl-")),
        num_completions_(static_cast<size_t>(call_.requests.front().completions)),
        choices_(call_.requests.size() * num_completions_),
        responses_(call_.requests.size()),
        num_open_(call_.requests.size()),
        running_(service.requests().begin(id_, call_.owner, created_, prompt_tokens_of(call_))) {
    if (call_.tools.tools.empty()) return;
    for (Choice& choice : choices_) choice.parser.emplace(call_.tools);
  }

  void start() {
    check_lengths();
    prepare_routing();
    submit();
    exchange_->on_gone([weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        const std::lock_guard guard(self->mutex_);
        self->cancel();
      }
    });
  }

 private:
  static int64_t prompt_tokens_of(const CompletionCall& call) {
    int64_t tokens = 0;
    for (const engine::Request& request : call.requests) tokens += std::ssize(request.prompt.tokens);
    return tokens;
  }

  struct ToolCall {
    std::string id, name, arguments;
  };

  struct Choice {
    std::optional<text::ToolCallParser> parser;
    std::string content;  // what is no call, with a parser
    std::vector<ToolCall> calls;
    std::vector<engine::Sample> samples;  // not yet sent
    engine::Clock::time_point last_token;
    bool begun = false;
    int64_t offset = 0;  // characters sent, for text_offset
  };

  void submit() {
    const std::lock_guard lock(mutex_);  // nothing is sent before all are submitted
    for (size_t i = 0; i < call_.requests.size(); ++i) {
      engine::Request request = call_.requests[i];
      request.routing = routing_;
      set_callbacks(request, i);
      try {
        tickets_.push_back(service_.engine().submit(std::move(request)));
      } catch (...) {
        given_up_ = true;
        cancel();
        throw;
      }
    }
    if (call_.stream) exchange_->begin(head("text/event-stream"));
  }

  void check_lengths() const {
    const int64_t context = service_.loaded().config().text.max_position_embeddings;
    for (const engine::Request& request : call_.requests) {
      const int64_t tokens = std::ssize(request.prompt.tokens);
      if (context > 0 && tokens >= context) {
        throw ApiError(400, fmt::format("The prompt has {} tokens; the model's context is {}.", tokens, context),
                       call_.chat ? "messages" : "prompt", "context_length_exceeded");
      }
    }
  }

  void prepare_routing() {
    if (!call_.return_routing) return;
    if (choices_.size() > 1) throw ApiError(400, "'return_routing' needs one prompt and 'n' of 1", "return_routing");
    const engine::Request& request = call_.requests.front();
    const arch::TextConfig& config = service_.loaded().config().text;
    const auto plans = arch::layer_plan(config);
    const int64_t layers = std::count_if(plans.begin(), plans.end(), [](const auto& plan) { return plan.moe; });
    const int64_t width =
        std::max<int64_t>(layers * config.num_experts_per_tok * engine::RoutingRecord::kEntryBytes, 1);
    // No more than the request can have, and ids of the tokens beside.
    int64_t most = std::min(request.max_tokens, Requests::kMostBytesOfOne) + std::ssize(request.prompt.tokens);
    if (config.max_position_embeddings > 0) most = std::min<int64_t>(most, config.max_position_embeddings);
    most = std::min(most, Requests::kMostBytesOfOne / width);
    share_ = service_.requests().reserve(most * width + 4 * std::ssize(request.prompt.tokens));
    routing_ = std::make_shared<engine::RoutingRecord>(layers, config.num_experts_per_tok, most);
  }

  void keep_routing(const engine::Response& response) {
    const engine::Generation& one = response.completions.front();
    KeptRouting kept;
    kept.id = id_;
    kept.owner = call_.owner;
    kept.created = created_;
    kept.prompt = call_.requests.front().prompt;
    kept.prompt.features.reset();
    kept.generated = one.tokens;
    kept.reused_tokens = one.reused_tokens;
    kept.truncated = routing_->positions() < std::ssize(kept.prompt.tokens) + std::ssize(kept.generated) - 1;
    kept.record = std::move(routing_);
    service_.requests().keep(std::move(kept), std::move(share_));
  }

  // The engine holds the answer until the request is done; the answer holds tickets, which hold nothing back.
  void set_callbacks(engine::Request& request, size_t prompt) {
    const auto self = shared_from_this();
    request.on_token = [self, prompt](int completion, const engine::Sample& sample) {
      self->token(prompt, completion, sample);
    };
    if (call_.stream || choices_.front().parser) {
      request.on_text = [self, prompt](int completion, std::string_view text) {
        const std::lock_guard lock(self->mutex_);
        self->take_text(self->index_of(prompt, completion), text);
      };
    }
    request.on_prefill = [self](int64_t done, int64_t) { self->running_->prompt_done = done; };
    request.on_done = [self, prompt](const engine::Response& response) { self->done(prompt, response); };
  }

  size_t index_of(size_t prompt, int completion) const {
    return prompt * num_completions_ + static_cast<size_t>(completion);
  }

  void cancel() {
    for (const auto& ticket : tickets_) ticket->cancel();
  }

  http::Reply head(const char* type) const {
    http::Reply reply;
    reply.content_type = type;
    if (call_.stream) reply.headers.emplace_back("Cache-Control", "no-cache");
    if (const std::string names = shown_names(call_.unknown); !names.empty())
      reply.headers.emplace_back("X-Puna-Ignored", names);
    reply.headers.emplace_back("X-Request-Id", id_);
    return reply;
  }

  OrderedJson envelope(const char* object) const {
    return {{"id", id_}, {"object", object}, {"created", created_}, {"model", service_.options().model_id}};
  }

  void token(size_t prompt, int completion, const engine::Sample& sample) {
    Choice& choice = choices_[index_of(prompt, completion)];
    const auto now = engine::Clock::now();
    if (choice.last_token == engine::Clock::time_point()) {
      service_.metrics()->first_token(seconds_since(call_.arrival));
    } else {
      service_.metrics()->next_token(std::chrono::duration<double>(now - choice.last_token).count());
    }
    choice.last_token = now;
    running_->count_token();
    if (call_.stream && call_.top_logprobs >= 0) choice.samples.push_back(sample);
    const text::Tokenizer& tokenizer = *service_.loaded().tokenizer;
    if (choice.parser && sample.id < tokenizer.vocab_size() && tokenizer.is_special(sample.id)) {
      const std::lock_guard lock(mutex_);
      take_events(index_of(prompt, completion), choice.parser->special(tokenizer.token_bytes(sample.id)));
    }
  }

  // ---- calls of tools

  void take_text(size_t index, std::string_view text) {
    Choice& choice = choices_[index];
    if (!choice.parser) return send_text(index, text);
    take_events(index, choice.parser->push(text));
  }

  void take_events(size_t index, const std::vector<text::ToolCallEvent>& events) {
    using Kind = text::ToolCallEvent::Kind;
    Choice& choice = choices_[index];
    for (const text::ToolCallEvent& event : events) {
      if (event.kind == Kind::kContent) {
        choice.content += event.text;
        if (call_.stream) send_text(index, event.text);
        continue;
      }
      OrderedJson delta = {{"index", event.call}};
      if (event.kind == Kind::kCallBegun) {
        choice.calls.push_back({new_id("call_"), event.text, ""});
        delta.update(call_json(choice.calls.back()));
      } else if (event.kind == Kind::kArguments) {
        choice.calls.at(event.call).arguments += event.text;
        delta["function"] = {{"arguments", event.text}};
      } else {
        continue;
      }
      if (!call_.stream || given_up_) continue;
      begin_choice(index);
      send_choice(index, {{"tool_calls", OrderedJson::array({std::move(delta)})}}, {}, nullptr);
    }
  }

  static OrderedJson call_json(const ToolCall& call) {
    return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
  }

  OrderedJson reason_of(size_t index, engine::StopReason reason) const {
    const char* name = finish_reason(reason);
    return !choices_[index].calls.empty() && name == std::string_view("stop") ? "tool_calls" : name;
  }

  /// What the parser still held back.
  void finish_calls(size_t prompt) {
    for (size_t i = 0; i < num_completions_; ++i) {
      const size_t index = prompt * num_completions_ + i;
      if (choices_[index].parser) take_events(index, choices_[index].parser->finish());
    }
  }

  // ---- in pieces

  void send(const OrderedJson& json) {
    exchange_->write("data: " + dump(json) + "\n\n");
    if (exchange_->unsent_bytes() <= kMostUnsent) return;
    given_up_ = true;  // and dropped without its end, so that the client sees that it is not whole
    cancel();
  }

  OrderedJson logprobs_of(Choice& choice, std::span<const engine::Sample> samples) {
    if (call_.top_logprobs < 0) return nullptr;
    if (call_.chat) return chat_logprobs(service_.loaded(), samples);
    std::vector<PlacedToken> tokens;
    for (const engine::Sample& sample : samples) tokens.push_back({sample.id, &sample});
    return completion_logprobs(service_.loaded(), tokens, call_.top_logprobs, choice.offset);
  }

  OrderedJson chunk(OrderedJson choice) const {
    OrderedJson json = envelope(call_.chat ? "chat.completion.chunk" : "text_completion");
    json["choices"] = OrderedJson::array({std::move(choice)});
    if (call_.include_usage) json["usage"] = nullptr;
    return json;
  }

  void send_choice(size_t index, OrderedJson delta, std::string_view text, const OrderedJson& reason) {
    if (given_up_) return;
    Choice& choice = choices_[index];
    OrderedJson json = {{"index", index}};
    if (call_.chat) {
      json["delta"] = std::move(delta);
    } else {
      json["text"] = text;
    }
    json["logprobs"] = choice.samples.empty() ? OrderedJson(nullptr) : logprobs_of(choice, choice.samples);
    choice.samples.clear();
    json["finish_reason"] = reason;
    send(chunk(std::move(json)));
  }

  void begin_choice(size_t index) {
    Choice& choice = choices_[index];
    if (std::exchange(choice.begun, true)) return;
    const size_t prompt = index / num_completions_;
    if (call_.chat) {
      const std::vector<engine::Sample> kept = std::exchange(choice.samples, {});
      send_choice(index, {{"role", "assistant"}, {"content", ""}}, {}, nullptr);
      choice.samples = kept;
    } else if (call_.echo) {
      send_choice(index, {}, prompt_text(prompt), nullptr);
    }
  }

  void send_text(size_t index, std::string_view text) {
    if (given_up_ || text.empty()) return;
    begin_choice(index);
    send_choice(index, {{"content", text}}, text, nullptr);
  }

  void end_stream(size_t prompt, const engine::Response& response) {
    for (size_t i = 0; i < response.completions.size(); ++i) {
      const size_t index = prompt * num_completions_ + i;
      begin_choice(index);
      send_choice(index, OrderedJson::object(), {}, reason_of(index, response.completions[i].reason));
    }
  }

  // ---- whole

  std::span<const engine::TokenId> prompt_tokens(size_t prompt) const {
    const std::span<const engine::TokenId> tokens = call_.requests[prompt].prompt.tokens;
    return call_.added_bos[prompt] ? tokens.subspan(1) : tokens;
  }
  std::string prompt_text(size_t prompt) const { return service_.loaded().tokenizer->decode(prompt_tokens(prompt)); }

  /// Of the prompt when it is echoed, and of what was generated.
  OrderedJson whole_logprobs(size_t prompt, const engine::Response& response, const engine::Generation& one) {
    if (call_.top_logprobs < 0) return nullptr;
    if (call_.chat) return chat_logprobs(service_.loaded(), one.samples);
    std::vector<PlacedToken> tokens;
    if (call_.echo) {
      const auto ids = prompt_tokens(prompt);
      const size_t skipped = call_.added_bos[prompt] ? 0 : 1;  // samples are of the prompt's tokens from the second on
      for (size_t i = 0; i < ids.size(); ++i)
        tokens.push_back({ids[i], i < skipped ? nullptr : &response.prompt_samples.at(i - skipped)});
    }
    for (const engine::Sample& sample : one.samples) tokens.push_back({sample.id, &sample});
    int64_t offset = 0;
    return completion_logprobs(service_.loaded(), tokens, call_.top_logprobs, offset);
  }

  OrderedJson whole_choice(size_t prompt, const engine::Response& response, size_t completion) {
    const engine::Generation& one = response.completions[completion];
    const size_t index = prompt * num_completions_ + completion;
    const Choice& choice = choices_[index];
    OrderedJson json = {{"index", index}};
    if (call_.chat) {
      const std::string& content = choice.parser ? choice.content : one.text;
      json["message"] = {{"role", "assistant"}, {"content", content}, {"refusal", nullptr}};
      if (!choice.calls.empty()) {
        if (content.empty()) json["message"]["content"] = nullptr;
        json["message"]["tool_calls"] = OrderedJson::array();
        for (const ToolCall& call : choice.calls) json["message"]["tool_calls"].push_back(call_json(call));
      }
    } else {
      json["text"] = (call_.echo ? prompt_text(prompt) : "") + one.text;
    }
    json["logprobs"] = whole_logprobs(prompt, response, one);
    json["finish_reason"] = reason_of(index, one.reason);
    return json;
  }

  void reply_whole() {
    OrderedJson json = envelope(call_.chat ? "chat.completion" : "text_completion");
    json["choices"] = OrderedJson::array();
    for (size_t prompt = 0; prompt < responses_.size(); ++prompt) {
      for (size_t i = 0; i < responses_[prompt].completions.size(); ++i)
        json["choices"].push_back(whole_choice(prompt, responses_[prompt], i));
    }
    json["usage"] = usage_json(responses_);
    http::Reply reply = head("application/json");
    reply.body = dump(json);
    exchange_->reply(std::move(reply));
  }

  // ---- the end

  void done(size_t prompt, const engine::Response& response) {
    const std::lock_guard lock(mutex_);
    if (routing_ && !response.error) keep_routing(response);
    if (given_up_) return;
    if (response.error) return fail(api_error_of(response.error));
    const auto cut = [](const engine::Generation& one) { return one.reason == engine::StopReason::kCancelled; };
    if (std::any_of(response.completions.begin(), response.completions.end(), cut))
      return fail(ApiError(503, "The answer was cut short.", {}, "cancelled"));
    responses_[prompt] = response;
    finish_calls(prompt);
    if (call_.stream) end_stream(prompt, response);
    if (given_up_) return;
    if (--num_open_ > 0) return;
    given_up_ = true;
    if (!call_.stream) return reply_whole();
    if (call_.include_usage) {
      OrderedJson json = envelope(call_.chat ? "chat.completion.chunk" : "text_completion");
      json["choices"] = OrderedJson::array();
      json["usage"] = usage_json(responses_);
      send(json);
    }
    exchange_->write("data: [DONE]\n\n");
    exchange_->end();
  }

  void fail(const ApiError& error) {
    given_up_ = true;
    cancel();
    if (!call_.stream) return exchange_->reply(error.reply());
    send(error.json());
    exchange_->end();
  }

  const CompletionCall call_;
  Service& service_;
  const std::shared_ptr<Service::Place> place_;
  const std::shared_ptr<http::Exchange> exchange_;
  const std::string id_;
  const int64_t created_ = unix_time();
  const size_t num_completions_;

  std::mutex mutex_;
  std::vector<Choice> choices_;  // of the first prompt, of the second, ...
  std::vector<engine::Response> responses_;
  std::vector<std::shared_ptr<engine::Ticket>> tickets_;
  size_t num_open_;
  const std::shared_ptr<RunningRequest> running_;  // in the list of those
  std::shared_ptr<engine::RoutingRecord> routing_;
  std::shared_ptr<Requests::Share> share_;
  bool given_up_ = false;  // nothing more is sent
};

}  // namespace

void answer(CompletionCall call, Service& service, std::shared_ptr<Service::Place> place,
            std::shared_ptr<http::Exchange> exchange) {
  std::make_shared<Answer>(std::move(call), service, std::move(place), std::move(exchange))->start();
}

}  // namespace puna::server
