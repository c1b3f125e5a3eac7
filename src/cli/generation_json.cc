#include "cli/generation_json.h"

#include <cmath>

namespace puna::cli {

Json logprobs_json(const engine::LoadedModel& loaded, const std::vector<engine::Sample>& samples) {
  const auto entry = [&](engine::TokenId id, double logprob) {
    const bool known = id < loaded.tokenizer->vocab_size();
    return Json{{"token", id},
                {"text", known ? std::string(loaded.tokenizer->token_bytes(id)) : ""},
                {"logprob", std::isfinite(logprob) ? Json(logprob) : Json(nullptr)}};
  };
  Json list = Json::array();
  for (const engine::Sample& sample : samples) {
    Json item = entry(sample.id, sample.logprob);
    item["top"] = Json::array();
    for (const auto& other : sample.top) item["top"].push_back(entry(other.id, other.logprob));
    list.push_back(std::move(item));
  }
  return list;
}

Json generation_json(const engine::LoadedModel& loaded, const engine::Generation& generation) {
  Json json = {{"text", generation.text},
               {"tokens", generation.tokens},
               {"stop_reason", engine::stop_reason_name(generation.reason)}};
  json["stop"] = generation.stop.empty() ? Json(nullptr) : Json(generation.stop);
  if (!generation.samples.empty()) json["logprobs"] = logprobs_json(loaded, generation.samples);
  return json;
}

Json usage_json(const std::vector<engine::Generation>& completions) {
  int64_t generated = 0;
  for (const engine::Generation& generation : completions) generated += std::ssize(generation.tokens);
  const int64_t prompt = completions.at(0).prompt_tokens;
  return {{"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
}

}  // namespace puna::cli
