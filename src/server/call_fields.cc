#include "server/call_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <random>

#include "base/error.h"
#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr size_t kMostStops = 64, kMostStopBytes = 1024;  // each
constexpr size_t kMostBiases = 1024;

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

/// Errors name the field that the grammar came from.
GrammarPointer compiled(const Service::Place& place, Service::GrammarKind kind, const std::string& text,
                        const std::string& field) {
  try {
    return place.service().grammar(kind, text, place);
  } catch (const Error& error) {
    throw ApiError(400, error.what(), field);
  }
}

}  // namespace

engine::TokenId read_token(const OrderedJson& id, const std::string& path, const engine::LoadedModel& loaded) {
  const int64_t vocabulary = loaded.config().text.vocab_size;
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary)
    wrong_field(path, id, fmt::format("token ids from 0 to {}", vocabulary - 1));
  return id.get<engine::TokenId>();
}

GrammarPointer read_format(const OrderedJson& format, const std::string& path, bool flat, const Service::Place& place) {
  Fields form(format, path);
  const std::string type = form.required_text("type");
  if (type == "text") return nullptr;
  if (type == "json_object") return compiled(place, Service::GrammarKind::kAnyJsonObject, "", form.path_of("type"));
  if (type != "json_schema") wrong_field(form.path_of("type"), OrderedJson(type), "text, json_object or json_schema");
  const std::string at = flat ? path : form.path_of("json_schema");
  const OrderedJson* named = flat ? &format : form.find("json_schema");
  if (!named) throw ApiError(400, fmt::format("'{}' is missing", at), at);
  Fields schema(*named, at);
  const OrderedJson* given = schema.find("schema");
  if (!given) throw ApiError(400, fmt::format("'{}' is missing", schema.path_of("schema")), schema.path_of("schema"));
  return compiled(place, Service::GrammarKind::kJsonSchema, given->dump(), schema.path_of("schema"));
}

GrammarPointer read_grammar(Fields& fields, const Service::Place& place) {
  const auto gbnf = fields.text("grammar");
  const OrderedJson* format = fields.find("response_format");
  if (!format) return gbnf ? compiled(place, Service::GrammarKind::kGbnf, *gbnf, "grammar") : nullptr;
  if (gbnf) throw ApiError(400, "'grammar' and 'response_format' cannot both be given", "grammar");
  return read_format(*format, "response_format", false, place);
}

void read_stop_strings(Fields& fields, const std::string& name, engine::Request& request) {
  for (std::string& one : fields.texts(name)) {
    if (one.empty() || one.size() > kMostStopBytes)
      wrong_field(name, OrderedJson(one), fmt::format("strings of 1 to {} bytes", kMostStopBytes));
    request.stop_strings.push_back(std::move(one));
  }
  if (request.stop_strings.size() > kMostStops)
    throw ApiError(400, fmt::format("'{}' holds more than {} entries", name, kMostStops), name);
}

std::string read_model(Fields& fields, const Service& service, std::shared_ptr<const engine::RequestAdapter>& adapter) {
  const std::string& own = service.options().model_id;
  std::string model = fields.text("model").value_or("");
  if (model.empty() || model == own) return own;
  adapter = service.adapters().find(model);
  if (adapter) return model;
  throw ApiError(404, fmt::format("The model '{}' does not exist; this server has '{}'.", model.substr(0, 100), own),
                 "model", "model_not_found");
}

engine::Request read_common(Fields& fields, Service& service, Service::Place& place, CompletionCall& call) {
  engine::Request request;
  call.model = read_model(fields, service, request.adapter);
  read_sampling(fields, service.loaded(), request.sampling);
  read_stops(fields, service.loaded(), request);
  request.priority = static_cast<int>(fields.integer("priority", -1000, 0).value_or(0));
  request.ignore_stop_tokens = fields.boolean("ignore_eos").value_or(false);
  place.seconds = fields.number("timeout", 0.001, 1e6).value_or(place.seconds);
  request.deadline = place.deadline();
  call.stream = fields.boolean("stream").value_or(false);
  if (const OrderedJson* routing = fields.find("return_routing")) {
    call.routing_if_room = *routing == "if_room";
    if (!routing->is_boolean() && !call.routing_if_room)
      wrong_field("return_routing", *routing, "true, false or if_room");
    call.return_routing = call.routing_if_room || routing->get<bool>();
  }
  if (const OrderedJson* options = fields.find("stream_options")) {
    Fields of_stream(*options, "stream_options");
    call.include_usage = of_stream.boolean("include_usage").value_or(false);
  }
  fields.ignore({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"});
  return request;
}

void refuse_uploads(const Service::Place& place) {
  if (!place.uploads.empty()) throw ApiError(415, "A form with pictures has no place here; send JSON");
}

void read_completions(Fields& fields, const Service& service, engine::Request& request) {
  const int64_t most = std::min<int64_t>(kMostCompletions, service.options().engine.max_sequences);
  request.completions = static_cast<int>(fields.integer("n", 1, most).value_or(1));
}

void set_tokens(Fields& fields, std::initializer_list<const char*> names, int64_t least, const Service& service,
                engine::Request& request) {
  request.max_tokens = service.options().default_tokens;
  fields.ignore(names);
  for (const char* name : names) {
    if (const auto given = fields.integer(name, least, int64_t{1} << 40)) {
      request.max_tokens = *given;
      return;
    }
  }
}

void set_prompt(Conversation conversation, Tools tools, engine::Request request, CompletionCall& call,
                Service::Place& place) {
  if (!tools.schema.empty()) {
    if (request.grammar)
      throw ApiError(400, "'tool_choice' that asks for a call and a grammar exclude each other", "tool_choice");
    request.grammar = compiled(place, Service::GrammarKind::kJsonSchema, tools.schema, "tools");
  }
  text::ChatOptions options;
  options.tools = std::move(tools.definitions);
  auto made = place.service().prompt_of(std::move(conversation), std::move(options), place, prompt_field(call.form));
  request.prompt = std::move(made.prompt);
  call.images = std::move(made.images);
  place.uploads.clear();
  call.tools = std::move(tools.rules);
  call.requests.push_back(std::move(request));
  call.added_bos.push_back(false);
}

}  // namespace puna::server
