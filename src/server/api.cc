#include "server/api.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/suggest.h"
#include "http/server.h"
#include "server/api_error.h"
#include "server/multipart.h"
#include "server/page.h"
#include "server/result_json.h"
#include "server/tools.h"

namespace puna::server {
namespace {

constexpr int64_t kMostTokensShown = 1'000'000;
constexpr size_t kLargeBytes = 256 << 10;  // of a body, that may take long to read

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

/// The key of "Authorization: Bearer KEY", or of Anthropic's header.
std::string_view key_of(const http::Request& request) {
  const std::string_view bearer = request.header("authorization");
  constexpr std::string_view kScheme = "Bearer ";
  if (lower(bearer.substr(0, kScheme.size())) == lower(kScheme)) return bearer.substr(kScheme.size());
  return request.header("x-api-key");
}

/// An address of loopback or "localhost", with a port or without.
bool names_this_machine(std::string_view given) {
  std::string host = lower(given);
  const size_t colon = host.rfind(':');
  if (colon != std::string::npos && host.find_first_not_of("0123456789", colon + 1) == std::string::npos)
    host.resize(colon);
  if (host.empty()) return true;
  if (host != "localhost" && host.find_first_not_of("[]:.0123456789abcdef") != std::string::npos) return false;
  try {
    return http::is_loopback(host);
  } catch (const Error&) {
    return false;
  }
}

/// A browser names the page that asks; one that this server gave out itself has its own address.
bool is_own_origin(const http::Request& request) {
  const std::string_view origin = request.header("origin");
  const size_t at = origin.find("://");
  return at != std::string_view::npos && lower(origin.substr(at + 3)) == lower(request.header("host"));
}

/// True for a form with files. Throws for all but that and JSON.
bool is_multipart(const http::Request& request) {
  // Needed even of those who leave it out: a page of another origin may send that without asking first.
  const std::string_view type = request.header("content-type");
  std::string kind = lower(type.substr(0, type.find(';')));
  kind.resize(kind.find_last_not_of(" \t") + 1);
  if (kind == "application/json") return false;
  if (kind == "multipart/form-data") return true;
  throw ApiError(415,
                 fmt::format("Content-Type is '{}'; send JSON, with Content-Type: application/json, or a form with "
                             "files, multipart/form-data",
                             type.substr(0, 80)));
}

/// The JSON of a form is its part "request"; its other parts are pictures.
std::string take_parts(const std::string& type, std::string_view body, Uploads& uploads) {
  uploads = read_multipart(type, body);
  const auto json = uploads.find("request");
  if (json == uploads.end()) throw ApiError(400, "The form has no part 'request', which holds the JSON", "request");
  std::string text = std::move(json->second);
  uploads.erase(json);
  return text;
}

/// The client's own, if it is one that headers and logs can hold.
std::string request_id(const http::Request& request) {
  const std::string_view given = request.header("x-request-id");
  const bool plain = std::all_of(given.begin(), given.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
  });
  return plain && !given.empty() && given.size() <= 128 ? std::string(given) : new_id("req_");
}

/// As /v1/chat/completions would give it to the model: `messages`, `tools`, `tool_choice`, `add_generation_prompt`.
engine::Prompt read_chat_prompt(Fields& fields, Service::Place& place) {
  const OrderedJson& messages = fields.required("messages");
  text::ChatOptions options;
  options.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
  options.tools = read_tools(fields).definitions;
  return place.service().prompt_of(read_messages(messages, "messages"), std::move(options), place, "messages").prompt;
}

ErrorForm error_form_of(const std::string& path) {
  return path.starts_with("/v1/messages") ? ErrorForm::kAnthropic : ErrorForm::kOpenAi;
}

}  // namespace

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> kRoutes = {
      {"GET", "/health", &Api::health, true},
      {"GET", "/metrics", &Api::metrics},
      {"GET", "/v1/models", &Api::models},
      {"POST", "/v1/chat/completions", &Api::chat},
      {"POST", "/v1/completions", &Api::completions},
      {"POST", "/v1/responses", &Api::responses},
      {"POST", "/v1/messages", &Api::messages},
      {"POST", "/v1/messages/count_tokens", &Api::count_tokens},
      {"POST", "/v1/embeddings", &Api::embeddings},
      {"POST", "/v1/load_lora_adapter", &Api::load_adapter},
      {"POST", "/v1/unload_lora_adapter", &Api::unload_adapter},
      {"POST", "/tokenize", &Api::tokenize},
      {"POST", "/detokenize", &Api::detokenize},
      {"GET", "/requests", &Api::requests},
      {"GET", "/v1/requests", &Api::routing},
      {"GET", "/tokenizer_info", &Api::tokenizer_info},
      {"POST", "/apply-template", &Api::apply_template},
  };
  return kRoutes;
}

Api::Api(std::shared_ptr<Service> service, ApiOptions options)
    : current_(std::move(service)), options_(std::move(options)), meter_(options_.keys) {}

void Api::handle(const http::Request& request, const Exchange& exchange) {
  Incoming asked{request, exchange, service(), -1, {}};
  if (options_.log) asked.record = options_.log->begin(request.method, request.path.substr(0, 200), request.peer);
  http::Headers headers = cors_headers(request);
  headers.emplace_back("X-Request-Id", request_id(request));
  if (asked.record) asked.record->id = headers.back().second;
  exchange->prepare(std::move(headers), [metrics = asked.service->metrics(), path = known_path(request.path),
                                         record = asked.record](int status) {
    metrics->count_request(path, status);
    if (record) record->status = status;
  });
  try {
    route(asked);
  } catch (...) {
    exchange->reply(api_error_of(std::current_exception()).reply(error_form_of(request.path)));
  }
}

std::shared_ptr<Service> Api::service() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

std::shared_ptr<Service> Api::replace(std::shared_ptr<Service> service) {
  const std::lock_guard lock(mutex_);
  current_.swap(service);
  return service;
}

bool Api::takes_body(const http::Request& request) const {
  try {
    check_source(request);
  } catch (const ApiError&) {
    return false;  // and route() says so
  }
  return options_.keys.empty() || options_.keys.find(key_of(request)) >= 0;
}

void Api::check_source(const http::Request& request) const {
  if (options_.loopback && !names_this_machine(request.header("host")))
    throw ApiError(
        403, "Only requests for this machine's own name are answered; start the server with --host to change that");
  if (!request.header("origin").empty() && !is_own_origin(request) && cors_headers(request).empty())
    throw ApiError(403, "Pages of this origin may not ask; start the server with --origin to let them");
}

void Api::route(Incoming& asked) {
  const http::Request& request = asked.request;
  check_source(request);
  if (request.method == "OPTIONS")
    return asked.exchange->reply({.status = 204, .body = {}, .content_type = {}, .headers = {}});
  if (reply_page(request, *asked.exchange)) return;
  const Route* of_path = nullptr;
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  for (const Route& one : routes()) {
    if (known_path(request.path) != one.path) continue;
    of_path = &one;
    if (one.method != method) continue;
    check_caller(asked, one);
    return (this->*one.answer)(asked);
  }
  if (of_path) throw ApiError(405, fmt::format("{} takes {}, not {}", of_path->path, of_path->method, request.method));
  std::vector<std::string> paths;
  for (const Route& one : routes()) paths.emplace_back(one.path);
  const std::string nearest = nearest_name(request.path, paths);
  throw ApiError(404, fmt::format("There is no {}{}", request.path.substr(0, 200),
                                  nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest)));
}

// /v1/models/ID is one of /v1/models, /v1/requests/ID/routing of /v1/requests; all that there is not is one.
std::string Api::known_path(const std::string& path) {
  if (path.starts_with("/v1/models/")) return "/v1/models";
  if (path.starts_with(kRequestsPath)) return "/v1/requests";
  if (is_of_page(path)) return "/";
  for (const Route& one : routes()) {
    if (path == one.path) return path;
  }
  return "unknown";
}

http::Headers Api::cors_headers(const http::Request& request) const {
  const std::string origin(request.header("origin")), asked(request.header("access-control-request-headers"));
  const auto& allowed = options_.origins;
  const bool any = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (origin.empty() || (!any && std::find(allowed.begin(), allowed.end(), origin) == allowed.end())) return {};
  return {{"Access-Control-Allow-Origin", any ? "*" : origin},
          {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
          {"Access-Control-Allow-Headers", asked.empty() ? "Authorization, Content-Type, X-Api-Key" : asked},
          {"Access-Control-Expose-Headers", "X-Request-Id, X-Puna-Ignored, Retry-After"},
          {"Access-Control-Max-Age", "600"},
          {"Vary", "Origin"}};
}

void Api::check_caller(Incoming& asked, const Route& route) {
  if (route.open || options_.keys.empty()) return;
  const std::string_view key = key_of(asked.request);
  if (key.empty())
    throw ApiError(401, "A key is needed: send the header Authorization: Bearer KEY", {}, "invalid_api_key");
  asked.owner = options_.keys.find(key);
  if (asked.owner < 0) throw ApiError(401, "This key is not known here", {}, "invalid_api_key");
  if (asked.record) asked.record->key = options_.keys[asked.owner].name;
}

void Api::reply(const Exchange& exchange, const OrderedJson& json, const std::vector<std::string>& unknown) {
  http::Reply reply;
  tell_ignored(reply, unknown);
  reply.body = dump(json);
  exchange->reply(std::move(reply));
}

void Api::reply(const Place& place, const Exchange& exchange, const OrderedJson& json,
                const std::vector<std::string>& unknown) {
  place->release();
  reply(exchange, json, unknown);
}

void Api::with_body(const Incoming& asked, Work work) {
  const http::Request& request = asked.request;
  if (const auto coding = request.header("content-encoding"); !coding.empty() && lower(coding) != "identity")
    throw ApiError(415, fmt::format("Content-Encoding is '{}'; send the body as it is", coding.substr(0, 80)));
  const auto reading = std::make_shared<Reading>();
  if (is_multipart(request)) reading->form_type = request.header("content-type");
  const Place place = asked.service->take_place();
  place->key_use = meter_.take(asked.owner);
  place->owner = asked.owner;
  place->in_large_lane = request.body.size() > kLargeBytes;
  place->record = asked.record;
  place->gone = [weak = std::weak_ptr(asked.exchange)] {
    const auto held = weak.lock();
    return !held || held->gone();
  };
  reading->work = std::move(work);
  reading->place = place;
  reading->exchange = asked.exchange;
  reading->error_form = error_form_of(request.path);
  reading->body = request.body;
  reading->held = request.held;
  asked.service->prepare([this, reading] { read(reading); },
                         place->in_large_lane ? Service::Lane::kLarge : Service::Lane::kSmall);
}

void Api::read(const std::shared_ptr<Reading>& reading) {
  Reading& one = *reading;
  if (one.exchange->gone()) return;
  try {
    if (engine::Clock::now() > one.place->deadline()) throw out_of_time("it was read");
    if (!one.form_type.empty()) one.body = take_parts(std::exchange(one.form_type, {}), one.body, one.place->uploads);
    const OrderedJson json = parse_ordered_json(one.body, "body");
    if (one.place->record && one.place->record->log.with_texts())
      one.place->record->asked = one.body.substr(0, RequestRecord::kMostText);
    if (one.place->in_large_lane) std::string().swap(one.body);
    one.work(json, one.place, one.exchange);
  } catch (const Service::LargeWork&) {
    // It waits as the text that was sent, which is counted, and is read once more.
    one.place->in_large_lane = true;
    one.place->service().prepare([this, reading] { read(reading); }, Service::Lane::kLarge);
  } catch (...) {
    one.place->release();
    one.exchange->reply(api_error_of(std::current_exception()).reply(one.error_form));
  }
}

void Api::health(const Incoming& asked) { reply(asked.exchange, {{"status", "ok"}}); }

void Api::metrics(const Incoming& asked) {
  http::Reply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = asked.service->metrics()->text(*asked.service, connections());
  asked.exchange->reply(std::move(reply));
}

void Api::models(const Incoming& asked) {
  const std::string& own = asked.service->options().model_id;
  const auto entry = [&](const std::string& id, int64_t created) -> OrderedJson {
    return {{"id", id},
            {"object", "model"},
            {"created", created},
            {"owned_by", "puna"},
            {"parent", id == own ? OrderedJson(nullptr) : OrderedJson(own)},
            {"max_model_len", asked.service->loaded().config().text.max_position_embeddings}};
  };
  OrderedJson models = OrderedJson::array({entry(own, asked.service->created())});
  for (const auto& [name, created] : asked.service->adapters().list()) models.push_back(entry(name, created));
  constexpr std::string_view kOne = "/v1/models/";
  if (!asked.request.path.starts_with(kOne)) return reply(asked.exchange, {{"object", "list"}, {"data", models}});
  const std::string name = asked.request.path.substr(kOne.size());
  for (const OrderedJson& one : models)
    if (one["id"] == name) return reply(asked.exchange, one);
  throw ApiError(404, fmt::format("The model '{}' does not exist", name.substr(0, 100)), "model", "model_not_found");
}

void Api::tokenize(const Incoming& asked) {
  with_body(asked, [this](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    Fields fields(body);
    std::vector<text::TokenId> tokens;
    const Service& service = place->service();
    const text::Tokenizer& tokenizer = *service.loaded().tokenizer;
    if (fields.find("messages")) {
      tokens = read_chat_prompt(fields, *place).tokens;
    } else {
      // Both names that clients use.
      auto text = fields.text("prompt");
      if (!text) text = fields.text("content");
      if (!text)
        throw ApiError(400, "'prompt', 'content' or 'messages' is missing", "prompt", "missing_required_parameter");
      // As the clients of the two names expect: vLLM adds by default, llama.cpp does not.
      const bool add = fields.boolean("add_special_tokens")
                           .value_or(fields.boolean("add_special").value_or(body.contains("prompt")));
      if (const auto special = tokenizer.special(*text)) {
        tokens = {*special};  // special tokens in a text are text, but clients ask so which id one has
      } else {
        tokens = tokenizer.encode(*text);
        if (const auto bos = tokenizer.special("<|begin_of_text|>"); bos && add) tokens.insert(tokens.begin(), *bos);
      }
    }
    if (std::ssize(tokens) > kMostTokensShown) throw ApiError(413, "The text has too many tokens to list");
    reply(place, exchange,
          {{"count", tokens.size()},
           {"max_model_len", service.loaded().config().text.max_position_embeddings},
           {"tokens", tokens}},
          fields.unknown());
  });
}

void Api::detokenize(const Incoming& asked) {
  with_body(asked, [this](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    Fields fields(body);
    const Service& service = place->service();
    const OrderedJson* tokens = fields.find("tokens");
    if (!tokens || !tokens->is_array()) throw ApiError(400, "'tokens' must be an array of token ids", "tokens");
    if (std::ssize(*tokens) > kMostTokensShown) throw ApiError(413, "These are too many tokens for one text", "tokens");
    std::vector<text::TokenId> ids;
    for (const OrderedJson& id : *tokens) {
      if (!id.is_number_integer()) wrong_field("tokens", id, "token ids");
      const auto value = id.get<int64_t>();
      if (value < 0 || value >= service.loaded().tokenizer->vocab_size())
        wrong_field("tokens", id, fmt::format("token ids from 0 to {}", service.loaded().tokenizer->vocab_size() - 1));
      ids.push_back(static_cast<text::TokenId>(value));
    }
    const std::string text = service.loaded().tokenizer->decode(ids);
    reply(place, exchange, {{"prompt", text}, {"content", text}}, fields.unknown());
  });
}

void Api::tokenizer_info(const Incoming& asked) {
  const text::Tokenizer& tokenizer = *asked.service->loaded().tokenizer;
  const auto name = [&](const char* special) {
    return tokenizer.special(special) ? OrderedJson(special) : OrderedJson(nullptr);
  };
  reply(asked.exchange, {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"vocab_size", tokenizer.vocab_size()},
                         {"bos_token", name("<|begin_of_text|>")},
                         {"eos_token", name("<|eot|>")},
                         {"pad_token", name("<|finetune_right_pad|>")},
                         {"model_max_length", asked.service->loaded().config().text.max_position_embeddings},
                         {"chat_template", nullptr}});
}

void Api::apply_template(const Incoming& asked) {
  with_body(asked, [this](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    Fields fields(body);
    const engine::Prompt prompt = read_chat_prompt(fields, *place);
    reply(place, exchange, {{"prompt", place->service().loaded().tokenizer->decode(prompt.tokens)}}, fields.unknown());
  });
}

}  // namespace puna::server
