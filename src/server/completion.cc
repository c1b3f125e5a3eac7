#include "server/completion.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <random>

#include "server/api_error.h"
#include "server/tools.h"

namespace puna::server {
namespace {

constexpr int kMostAlternatives = 20;
constexpr int kMostCompletions = 128;
constexpr size_t kMostPrompts = 256;
constexpr size_t kMostStops = 64, kMostStopBytes = 1024;  // each
constexpr size_t kMostBiases = 1024;
constexpr size_t kMostAnswers = 1024;  // of one request: prompts times n

/// Throws ApiError unless it is a token of the vocabulary.
engine::TokenId read_token(const OrderedJson& id, const std::string& path, const engine::LoadedModel& loaded) {
  const int64_t vocabulary = loaded.config().text.vocab_size;
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary)
    wrong_field(path, id, fmt::format("token ids from 0 to {}", vocabulary - 1));
  return id.get<engine::TokenId>();
}

void read_stops(Fields& fields, const engine::LoadedModel& loaded, engine::Request& request) {
  const OrderedJson* stop = fields.find("stop");
  const auto add = [&](const OrderedJson& one) {
    if (one.is_number_integer()) {
      request.stop_tokens.push_back(read_token(one, "stop", loaded));
    } else if (one.is_string() && !one.get_ref<const std::string&>().empty()) {
      request.stop_strings.push_back(one.get<std::string>());
      if (request.stop_strings.back().size() > kMostStopBytes)
        wrong_field("stop", one, fmt::format("at most {} bytes", kMostStopBytes));
    } else {
      wrong_field("stop", one, "a string that is not empty, a token id, or an array of them");
    }
  };
  if (stop && stop->size() > kMostStops)
    throw ApiError(400, fmt::format("'stop' holds more than {} entries", kMostStops), "stop");
  if (stop && stop->is_array()) {
    for (const OrderedJson& one : *stop) add(one);
  } else if (stop) {
    add(*stop);
  }
  if (const OrderedJson* ids = fields.find("stop_token_ids")) {
    if (!ids->is_array()) wrong_field("stop_token_ids", *ids, "an array of token ids");
    for (const OrderedJson& id : *ids) request.stop_tokens.push_back(read_token(id, "stop_token_ids", loaded));
  }
  if (request.stop_strings.size() + request.stop_tokens.size() > kMostStops)
    throw ApiError(400, fmt::format("'stop' holds more than {} entries", kMostStops), "stop");
}

void read_bias(Fields& fields, const engine::LoadedModel& loaded, engine::SamplingParams& sampling) {
  const OrderedJson* bias = fields.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object() || bias->size() > kMostBiases)
    wrong_field("logit_bias", *bias, fmt::format("an object of at most {} token ids and numbers", kMostBiases));
  for (const auto& [name, value] : bias->items()) {
    engine::TokenId id = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || end != name.data() + name.size() || id < 0 || id >= loaded.config().text.vocab_size)
      wrong_field("logit_bias", OrderedJson(name),
                  fmt::format("token ids from 0 to {}", loaded.config().text.vocab_size - 1));
    if (!value.is_number() || std::abs(value.get<double>()) > 100)
      wrong_field("logit_bias." + name, value, "a number from -100 to 100");
    // -100 is how clients say "never".
    sampling.logit_bias[id] =
        value.get<double>() <= -100 ? -std::numeric_limits<double>::infinity() : value.get<double>();
  }
}

uint64_t fresh_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

void read_sampling(Fields& fields, const engine::LoadedModel& loaded, engine::SamplingParams& sampling) {
  sampling = loaded.defaults;
  sampling.temperature = fields.number("temperature", 0, 100).value_or(sampling.temperature);
  if (const auto top_p = fields.number("top_p", 0, 1)) {
    sampling.top_p = *top_p > 0 ? *top_p : 1;
    if (*top_p == 0) sampling.temperature = 0;  // the most probable token alone
  }
  sampling.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, INT32_MAX).value_or(sampling.top_k));
  sampling.min_p = fields.number("min_p", 0, 1).value_or(sampling.min_p);
  sampling.typical_p = fields.number("typical_p", 1e-6, 1).value_or(sampling.typical_p);
  sampling.repetition_penalty = fields.number("repetition_penalty", 0.01, 100).value_or(sampling.repetition_penalty);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(sampling.frequency_penalty);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(sampling.presence_penalty);
  if (sampling.temperature > 0 && sampling.temperature < 0.001) sampling.temperature = 0;
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : fresh_seed();
  read_bias(fields, loaded, sampling);
}

std::shared_ptr<const grammar::CompiledGrammar> read_grammar(Fields& fields, Service& service) {
  const auto gbnf = fields.text("grammar");
  const OrderedJson* format = fields.find("response_format");
  if (!format) return gbnf ? service.grammar(Service::GrammarKind::kGbnf, *gbnf) : nullptr;
  if (gbnf) throw ApiError(400, "'grammar' and 'response_format' cannot both be given", "grammar");
  Fields form(*format, "response_format");
  const std::string type = form.required_text("type");
  if (type == "text") return nullptr;
  if (type == "json_object") return service.grammar(Service::GrammarKind::kAnyJsonObject, "");
  if (type != "json_schema") wrong_field("response_format.type", OrderedJson(type), "text, json_object or json_schema");
  const OrderedJson* named = form.find("json_schema");
  if (!named) throw ApiError(400, "'response_format.json_schema' is missing", "response_format.json_schema");
  Fields schema(*named, "response_format.json_schema");
  const OrderedJson* given = schema.find("schema");
  if (!given)
    throw ApiError(400, "'response_format.json_schema.schema' is missing", "response_format.json_schema.schema");
  return service.grammar(Service::GrammarKind::kJsonSchema, given->dump());
}

/// What both kinds of requests share.
engine::Request read_common(Fields& fields, Service& service, CompletionCall& call) {
  call.arrival = engine::Clock::now();
  const std::string model = fields.text("model").value_or("");
  if (!model.empty() && model != service.options().model_id) {
    throw ApiError(404,
                   fmt::format("The model '{}' does not exist; this server has '{}'.", model.substr(0, 100),
                               service.options().model_id),
                   "model", "model_not_found");
  }
  engine::Request request;
  read_sampling(fields, service.loaded(), request.sampling);
  read_stops(fields, service.loaded(), request);
  request.grammar = read_grammar(fields, service);
  request.completions = static_cast<int>(
      fields.integer("n", 1, std::min<int64_t>(kMostCompletions, service.options().engine.max_sequences)).value_or(1));
  request.priority = static_cast<int>(fields.integer("priority", -1000, 0).value_or(0));
  request.ignore_stop_tokens = fields.boolean("ignore_eos").value_or(false);
  call.stream = fields.boolean("stream").value_or(false);
  call.return_routing = fields.boolean("return_routing").value_or(false);
  if (const OrderedJson* options = fields.find("stream_options")) {
    Fields of_stream(*options, "stream_options");
    call.include_usage = of_stream.boolean("include_usage").value_or(false);
  }
  fields.ignore({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"});
  return request;
}

void set_tokens(Fields& fields, std::initializer_list<const char*> names, int64_t least, const Service& service,
                engine::Request& request) {
  request.max_tokens = service.options().default_tokens;
  for (const char* name : names) {
    if (const auto given = fields.integer(name, least, int64_t{1} << 40)) {
      request.max_tokens = *given;
      return;
    }
  }
}

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

CompletionCall read_chat_call(const OrderedJson& body, Service& service) {
  Fields fields(body);
  CompletionCall call;
  engine::Request request = read_common(fields, service, call);
  set_tokens(fields, {"max_completion_tokens", "max_tokens"}, 1, service, request);
  fields.ignore({"max_tokens"});
  const bool logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMostAlternatives);
  if (top && !logprobs) throw ApiError(400, "'top_logprobs' needs 'logprobs' to be true", "top_logprobs");
  if (logprobs) call.top_logprobs = request.sampling.logprobs = static_cast<int>(top.value_or(0));
  const OrderedJson* messages = fields.find("messages");
  if (!messages) throw ApiError(400, "'messages' is missing", "messages", "missing_required_parameter");
  Tools tools = read_tools(fields);
  if (!tools.schema.empty()) {
    if (request.grammar)
      throw ApiError(400, "'tool_choice' that asks for a call and a grammar exclude each other", "tool_choice");
    request.grammar = service.grammar(Service::GrammarKind::kJsonSchema, tools.schema);
  }
  text::ChatOptions options;
  options.tools = std::move(tools.definitions);
  request.prompt = service.prompt_of(read_messages(*messages, "messages"), options);
  call.tools = std::move(tools.rules);
  call.unknown = fields.unknown();
  call.requests.push_back(std::move(request));
  call.added_bos.push_back(false);
  return call;
}

CompletionCall read_completion_call(const OrderedJson& body, Service& service) {
  Fields fields(body);
  CompletionCall call;
  call.chat = false;
  engine::Request request = read_common(fields, service, call);
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

  const OrderedJson* prompt = fields.find("prompt");
  if (!prompt) throw ApiError(400, "'prompt' is missing", "prompt", "missing_required_parameter");
  const bool several = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  const size_t count = several ? prompt->size() : 1;
  if (count * static_cast<size_t>(request.completions) > kMostAnswers)
    throw ApiError(400, fmt::format("'prompt' and 'n' ask for more than {} answers", kMostAnswers), "n");
  if (count > kMostPrompts)
    throw ApiError(400, fmt::format("'prompt' holds more than {} prompts", kMostPrompts), "prompt");
  for (size_t i = 0; i < count; ++i) {
    engine::Request one = request;
    const OrderedJson& given = several ? (*prompt)[i] : *prompt;
    call.added_bos.push_back(
        read_prompt(given, several ? fmt::format("prompt[{}]", i) : "prompt", service, one.prompt));
    call.requests.push_back(std::move(one));
  }
  call.unknown = fields.unknown();
  return call;
}

}  // namespace puna::server
