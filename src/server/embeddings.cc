#include "server/embeddings.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "io/base64.h"
#include "server/api_error.h"
#include "server/call_fields.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr size_t kMostInputs = 2048;
constexpr int64_t kMostTokens = 300'000;    // of all inputs
constexpr int64_t kMostTokensOfOne = 8192;  // as OpenAI's; its keys and values are beside the cache

std::vector<std::vector<engine::TokenId>> read_inputs(Fields& fields, const engine::LoadedModel& loaded) {
  const OrderedJson& input = fields.required("input");
  const bool several = input.is_array() && !input.empty() && !input.front().is_number();
  const size_t count = several ? input.size() : 1;
  if (count > kMostInputs) throw ApiError(400, fmt::format("'input' holds more than {} texts", kMostInputs), "input");
  const int64_t context = loaded.config().text.max_position_embeddings;
  std::vector<std::vector<engine::TokenId>> inputs;
  int64_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    const OrderedJson& one = several ? input[i] : input;
    const std::string path = several ? fmt::format("input[{}]", i) : "input";
    std::vector<engine::TokenId> tokens;
    if (one.is_array()) {
      for (const OrderedJson& id : one) tokens.push_back(read_token(id, path, loaded));
    } else if (one.is_string()) {
      tokens = engine::raw_prompt(loaded, one.get_ref<const std::string&>()).tokens;
    } else {
      wrong_field(path, one, "a string or an array of token ids");
    }
    if (tokens.empty()) throw ApiError(400, fmt::format("'{}' holds no token", path), path);
    const int64_t longest = context > 0 ? std::min(context, kMostTokensOfOne) : kMostTokensOfOne;
    if (std::ssize(tokens) > longest) throw too_long(std::ssize(tokens), longest, "input");
    total += std::ssize(tokens);
    if (total > kMostTokens)
      throw ApiError(400, fmt::format("'input' holds more than {} tokens", kMostTokens), "input");
    inputs.push_back(std::move(tokens));
  }
  return inputs;
}

OrderedJson vector_json(const std::vector<float>& vector, bool base64) {
  if (!base64) return vector;
  static_assert(std::endian::native == std::endian::little, "the interface has little-endian numbers");
  return io::encode_base64({reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)});
}

}  // namespace

void answer_embeddings(const OrderedJson& body, std::shared_ptr<Service::Place> place,
                       std::shared_ptr<http::Exchange> exchange) {
  Service& service = place->service();
  Fields fields(body);
  refuse_uploads(*place);
  std::shared_ptr<const engine::RequestAdapter> adapter;
  read_model(fields, service, adapter);
  if (adapter) throw ApiError(400, "Embeddings are those of the model itself, without an adapter", "model");
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64") wrong_field("encoding_format", OrderedJson(format), "float or base64");
  const int64_t width = service.loaded().config().text.hidden_size;
  if (const auto dimensions = fields.integer("dimensions", 1, INT32_MAX); dimensions && *dimensions != width)
    throw ApiError(400, fmt::format("'dimensions' is {}; this model's vectors have {}", *dimensions, width),
                   "dimensions");
  fields.ignore({"user"});
  engine::EmbeddingRequest request;
  request.inputs = read_inputs(fields, service.loaded());
  int64_t tokens = 0;
  for (const auto& input : request.inputs) tokens += std::ssize(input);
  if (place->record) place->record->prompt_tokens = tokens;
  request.cancelled = [exchange, deadline = place->deadline()] {
    return exchange->gone() || engine::Clock::now() > deadline;
  };
  request.on_done = [=, &service, base64 = format == "base64", unknown = fields.unknown()](
                        std::vector<std::vector<float>> vectors, std::exception_ptr error) {
    // What a worker holds must be copyable.
    auto shared = std::make_shared<const std::vector<std::vector<float>>>(std::move(vectors));
    service.prepare(
        [=, &service] {
          place->release();
          if (error && engine::Clock::now() > place->deadline())
            return exchange->reply(out_of_time("its vectors were made").reply());
          if (error) return exchange->reply(api_error_of_run(error).reply());
          OrderedJson json = {{"object", "list"}, {"data", OrderedJson::array()}};
          for (size_t i = 0; i < shared->size(); ++i)
            json["data"].push_back(
                {{"object", "embedding"}, {"index", i}, {"embedding", vector_json((*shared)[i], base64)}});
          json["model"] = service.options().model_id;
          json["usage"] = {{"prompt_tokens", tokens}, {"total_tokens", tokens}};
          http::Reply reply;
          reply.body = dump(json);
          tell_ignored(reply, unknown);
          exchange->reply(std::move(reply));
          place->record.reset();
        },
        Service::Lane::kReply);
  };
  service.engine().embed(std::move(request));
}

}  // namespace puna::server
