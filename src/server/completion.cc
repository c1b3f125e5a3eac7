#include "server/completion.h"

#include <fmt/format.h>

#include "server/api_error.h"
#include "server/call_fields.h"

namespace puna::server {
namespace {

constexpr size_t kMostPrompts = 256;
constexpr size_t kMostAnswers = 1024;  // of one request: prompts times n

engine::Prompt tokens_prompt(const OrderedJson& ids, const std::string& path, const Service& service) {
  engine::Prompt prompt;
  for (const OrderedJson& id : ids) prompt.tokens.push_back(read_token(id, path, service.loaded()));
  if (prompt.tokens.empty()) throw ApiError(400, fmt::format("'{}' holds no token", path), path);
  return prompt;
}

/// One prompt: a text, or token ids. True: <|begin_of_text|> was put before it.
bool read_prompt(const OrderedJson& json, const std::string& path, const Service& service, engine::Prompt& prompt) {
  if (json.is_array()) {
    prompt = tokens_prompt(json, path, service);
    return false;
  }
  if (!json.is_string()) wrong_field(path, json, "a string or an array of token ids");
  prompt = engine::raw_prompt(service.loaded(), json.get_ref<const std::string&>());
  return service.loaded().tokenizer->special("<|begin_of_text|>").has_value();
}

}  // namespace

const char* prompt_field(CallForm form) {
  return form == CallForm::kCompletions ? "prompt" : form == CallForm::kResponses ? "input" : "messages";
}

ErrorForm error_form(CallForm form) { return form == CallForm::kMessages ? ErrorForm::kAnthropic : ErrorForm::kOpenAi; }

ApiError too_long(int64_t tokens, int64_t context, const char* field) {
  return ApiError(400, fmt::format("The prompt has {} tokens; the model's context is {}.", tokens, context), field,
                  "context_length_exceeded");
}

CompletionCall read_chat_call(const OrderedJson& body, Service::Place& place) {
  Service& service = place.service();
  Fields fields(body);
  CompletionCall call;
  engine::Request request = read_common(fields, service, place, call);
  request.grammar = read_grammar(fields, place);
  read_completions(fields, service, request);
  set_tokens(fields, {"max_completion_tokens", "max_tokens"}, 1, service, request);
  const bool logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMostAlternatives);
  if (top && !logprobs) throw ApiError(400, "'top_logprobs' needs 'logprobs' to be true", "top_logprobs");
  if (logprobs) call.top_logprobs = request.sampling.logprobs = static_cast<int>(top.value_or(0));
  const OrderedJson& messages = fields.required("messages");
  Tools tools = read_tools(fields);
  Conversation conversation = read_messages(messages, "messages");
  set_prompt(std::move(conversation), std::move(tools), std::move(request), call, place);
  call.unknown = fields.unknown();
  return call;
}

CompletionCall read_completion_call(const OrderedJson& body, Service::Place& place) {
  Service& service = place.service();
  Fields fields(body);
  refuse_uploads(place);
  CompletionCall call;
  call.form = CallForm::kCompletions;
  engine::Request request = read_common(fields, service, place, call);
  request.grammar = read_grammar(fields, place);
  read_completions(fields, service, request);
  call.echo = fields.boolean("echo").value_or(false);
  set_tokens(fields, {"max_tokens"}, call.echo ? 0 : 1, service, request);
  if (const auto top = fields.integer("logprobs", 0, kMostAlternatives)) {
    call.top_logprobs = request.sampling.logprobs = static_cast<int>(*top);
    if (call.echo) request.prompt_logprobs = call.top_logprobs;
    if (call.echo && call.stream)
      throw ApiError(400, "'echo' with 'logprobs' cannot be streamed; leave out one of the three", "stream");
  }
  if (request.max_tokens == 0 && request.prompt_logprobs < 0) request.prompt_logprobs = 0;
  if (const auto best = fields.integer("best_of", 1, kMostCompletions); best && *best != request.completions)
    throw ApiError(400, "'best_of' must equal 'n'; choose among the completions by their log-probabilities", "best_of");
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty())
    throw ApiError(400, "'suffix' is not possible with this model", "suffix");

  const OrderedJson& prompt = fields.required("prompt");
  const bool several = prompt.is_array() && !prompt.empty() && !prompt.front().is_number();
  const size_t count = several ? prompt.size() : 1;
  if (count * static_cast<size_t>(request.completions) > kMostAnswers)
    throw ApiError(400, fmt::format("'prompt' and 'n' ask for more than {} answers", kMostAnswers), "n");
  if (count > kMostPrompts)
    throw ApiError(400, fmt::format("'prompt' holds more than {} prompts", kMostPrompts), "prompt");
  for (size_t i = 0; i < count; ++i) {
    engine::Request one = request;
    const OrderedJson& given = several ? prompt[i] : prompt;
    call.added_bos.push_back(
        read_prompt(given, several ? fmt::format("prompt[{}]", i) : "prompt", service, one.prompt));
    call.requests.push_back(std::move(one));
  }
  call.unknown = fields.unknown();
  return call;
}

}  // namespace puna::server
