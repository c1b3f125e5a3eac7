#include "server/answer.h"

#include <fmt/format.h>

#include <algorithm>

#include "arch/layer_plan.h"
#include "server/answer_writer.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr int64_t kMostListed = 1'000'000;         // log-probabilities in one answer
constexpr size_t kMuchUnsent = size_t{256} << 10;  // bytes; beyond, the answer waits for its client
constexpr size_t kMostUnsent = size_t{4} << 20;    // bytes; a client that reads no more than that is given up

double seconds_between(engine::Clock::time_point from, engine::Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

const char* id_prefix(CallForm form) {
  switch (form) {
    case CallForm::kChat:
      return "chatcmpl-";
    case CallForm::kCompletions:
      return "cmpl-";
    case CallForm::kResponses:
      return "resp_";
    case CallForm::kMessages:
      return "msg_";
  }
  return "";
}

/// One call on its way. The engine's thread alone calls it once all is submitted, and a worker once all is done.
class Answer : public std::enable_shared_from_this<Answer> {
 public:
  Answer(CompletionCall call, std::shared_ptr<Service::Place> place, std::shared_ptr<http::Exchange> exchange)
      : state_{place->service(), new_id(id_prefix(call.form)), unix_time(), std::move(call), {}, {}},
        call_(state_.call),
        service_(state_.service),
        place_(std::move(place)),
        exchange_(std::move(exchange)),
        num_completions_(static_cast<size_t>(call_.requests.front().completions)),
        num_open_(call_.requests.size()),
        running_(service_.requests().begin(state_.id, place_->owner, state_.created, prompt_tokens_of(call_))) {
    state_.choices.resize(call_.requests.size() * num_completions_);
    state_.responses.resize(call_.requests.size());
    writer_ = call_.form == CallForm::kResponses  ? responses_writer(state_)
              : call_.form == CallForm::kMessages ? messages_writer(state_)
                                                  : openai_writer(state_);
    if (call_.tools.tools.empty()) return;
    for (Choice& choice : state_.choices) choice.parser.emplace(call_.tools);
  }

  void start() {
    check_lengths();
    prepare_routing();
    if (place_->record) place_->record->answer = state_.id;
    place_->count_answers(std::ssize(state_.choices));
    std::vector<engine::Request> requests = call_.requests;
    for (size_t i = 0; i < requests.size(); ++i) set_callbacks(requests[i], i);
    service_.engine().submit(std::move(requests), [this](const engine::Engine::Tickets& tickets) {
      tickets_ = tickets;
      if (!call_.stream) return;
      exchange_->begin(head("text/event-stream"));
      send(writer_->begin());
    });
    exchange_->on_gone([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->cancel();
    });
  }

 private:
  static int64_t prompt_tokens_of(const CompletionCall& call) {
    int64_t tokens = 0;
    for (const engine::Request& request : call.requests) tokens += std::ssize(request.prompt.tokens);
    return tokens;
  }

  void check_lengths() const {
    const int64_t context = service_.loaded().config().text.max_position_embeddings;
    int64_t listed = 0;  // tokens with their alternatives that the answer would hold
    for (const engine::Request& request : call_.requests) {
      const int64_t tokens = std::ssize(request.prompt.tokens);
      if (context > 0 && tokens >= context) throw too_long(tokens, context, prompt_field(call_.form));
      const int64_t room = context > 0 ? context - tokens : kMostListed + 1;
      listed += tokens * (request.prompt_logprobs + 1) +
                request.completions * std::min(request.max_tokens, room) * (call_.top_logprobs + 1);
      if (listed > kMostListed)
        throw ApiError(400,
                       fmt::format("The answer could list more than {} log-probabilities; ask for fewer tokens, "
                                   "completions or alternatives",
                                   kMostListed),
                       call_.form == CallForm::kCompletions ? "logprobs" : "top_logprobs");
    }
  }

  void prepare_routing() {
    if (!call_.return_routing) return;
    if (state_.choices.size() > 1)
      throw ApiError(400, "'return_routing' needs one prompt and 'n' of 1", "return_routing");
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
    try {
      share_ = service_.requests().reserve(most * width + 4 * std::ssize(request.prompt.tokens));
    } catch (const ApiError&) {
      if (call_.routing_if_room) return;
      throw;
    }
    routing_ = std::make_shared<engine::RoutingRecord>(layers, config.num_experts_per_tok, most);
  }

  void keep_routing(const engine::Response& response) {
    const engine::Generation& one = response.completions.front();
    KeptRouting kept;
    kept.id = state_.id;
    kept.owner = place_->owner;
    kept.created = state_.created;
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
      self->token(self->index_of(prompt, completion), sample);
    };
    if (call_.stream || state_.choices.front().parser) {
      request.on_text = [self, prompt](int completion, std::string_view text) {
        self->take_text(self->index_of(prompt, completion), text);
      };
    }
    if (call_.stream) request.paused = [exchange = exchange_] { return exchange->unsent_bytes() > kMuchUnsent; };
    request.routing = routing_;
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
    tell_ignored(reply, call_.unknown);
    return reply;
  }

  void token(size_t index, const engine::Sample& sample) {
    Choice& choice = state_.choices[index];
    const auto now = engine::Clock::now();
    if (choice.last_token == engine::Clock::time_point()) {
      service_.metrics()->first_token(seconds_between(place_->arrival, now));
    } else {
      service_.metrics()->next_token(seconds_between(choice.last_token, now));
    }
    choice.last_token = now;
    running_->count_token();
    if (call_.stream && call_.top_logprobs >= 0) choice.samples.push_back(sample);
    const text::Tokenizer& tokenizer = *service_.loaded().tokenizer;
    if (choice.parser && sample.id < tokenizer.vocab_size() && tokenizer.is_special(sample.id))
      take_events(index, choice.parser->special(tokenizer.token_bytes(sample.id)));
  }

  void take_text(size_t index, std::string_view text) {
    Choice& choice = state_.choices[index];
    if (choice.parser) {
      take_events(index, choice.parser->push(text));
    } else if (!text.empty()) {
      send(writer_->text(index, text));
    }
    service_.metrics()->token_handled(seconds_between(choice.last_token, engine::Clock::now()));
  }

  void take_events(size_t index, const std::vector<text::ToolCallEvent>& events) {
    using Kind = text::ToolCallEvent::Kind;
    Choice& choice = state_.choices[index];
    for (const text::ToolCallEvent& event : events) {
      if (event.kind == Kind::kContent) {
        choice.content += event.text;
        if (call_.stream && !event.text.empty()) send(writer_->text(index, event.text));
      } else if (event.kind == Kind::kCallBegun) {
        choice.calls.push_back({new_id(call_.form == CallForm::kMessages ? "toolu_" : "call_"), event.text, ""});
        if (call_.stream) send(writer_->call_begun(index, event.call));
      } else if (event.kind == Kind::kArguments) {
        choice.calls.at(event.call).arguments += event.text;
        if (call_.stream) send(writer_->call_arguments(index, event.call, event.text));
      }
    }
  }

  void send(const std::string& events) {
    if (given_up_ || events.empty()) return;
    exchange_->write(events);
    if (exchange_->unsent_bytes() <= kMostUnsent) return;
    given_up_ = true;  // and dropped without its end, so that the client sees that it is not whole
    cancel();
  }

  // ---- the end

  void done(size_t prompt, const engine::Response& response) {
    if (place_->record) count(response, *place_->record);
    if (routing_ && !response.error) keep_routing(response);
    if (given_up_) return;
    if (response.error) return fail(api_error_of_run(response.error));
    const auto cut = [](const engine::Generation& one) { return one.reason == engine::StopReason::kCancelled; };
    if (std::any_of(response.completions.begin(), response.completions.end(), cut))
      return fail(ApiError(503, "The answer was cut short.", {}, "cancelled"));
    const auto late = [](const engine::Generation& one) {
      return one.reason == engine::StopReason::kDeadline && one.tokens.empty();
    };
    if (std::any_of(response.completions.begin(), response.completions.end(), late))
      return fail(out_of_time("its first token"));
    state_.responses[prompt] = response;
    for (size_t i = 0; i < num_completions_; ++i) end_choice(prompt * num_completions_ + i);
    if (given_up_ || --num_open_ > 0) return;
    given_up_ = true;
    running_.reset();
    if (call_.stream) {
      place_->release();
      exchange_->write(writer_->end());
      exchange_->end();
    } else {
      // Long answers with log-probabilities are not written while all others wait.
      service_.prepare([self = shared_from_this()] { self->reply_whole(); }, Service::Lane::kReply);
    }
  }

  static void count(const engine::Response& response, RequestRecord& record) {
    if (record.log.with_texts())
      for (const engine::Generation& one : response.completions)
        if (record.answered.size() < RequestRecord::kMostText)
          record.answered += one.text.substr(0, RequestRecord::kMostText - record.answered.size());
    const Usage usage = usage_of(std::span(&response, 1));
    record.prompt_tokens += usage.prompt;
    record.generated_tokens += usage.generated;
  }

  void end_choice(size_t index) {
    Choice& choice = state_.choices[index];
    if (choice.parser) {
      take_events(index, choice.parser->finish());
    } else {
      choice.content = state_.generation(index).text;
    }
    if (call_.stream) send(writer_->choice_end(index));
  }

  void reply_whole() {
    try {
      http::Reply reply = head("application/json");
      reply.body = dump(writer_->whole());
      place_->release();
      exchange_->reply(std::move(reply));
    } catch (...) {
      place_->release();
      exchange_->reply(api_error_of(std::current_exception()).reply(error_form(call_.form)));
    }
  }

  void fail(const ApiError& error) {
    cancel();
    place_->release();
    if (call_.stream) {
      send(writer_->error(error));
      exchange_->end();
    } else {
      exchange_->reply(error.reply(error_form(call_.form)));
    }
    given_up_ = true;
  }

  AnswerState state_;
  const CompletionCall& call_;
  Service& service_;
  const std::shared_ptr<Service::Place> place_;
  const std::shared_ptr<http::Exchange> exchange_;
  const size_t num_completions_;
  std::unique_ptr<AnswerWriter> writer_;
  std::vector<std::shared_ptr<engine::Ticket>> tickets_;
  size_t num_open_;
  std::shared_ptr<RunningRequest> running_;  // in the list of those, until all is done
  std::shared_ptr<engine::RoutingRecord> routing_;
  std::shared_ptr<Requests::Share> share_;
  bool given_up_ = false;  // nothing more is sent
};

}  // namespace

void answer(CompletionCall call, std::shared_ptr<Service::Place> place, std::shared_ptr<http::Exchange> exchange) {
  std::make_shared<Answer>(std::move(call), std::move(place), std::move(exchange))->start();
}

}  // namespace puna::server
