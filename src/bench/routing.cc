#include "bench/routing.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "arch/layer_plan.h"
#include "base/error.h"

namespace puna::bench {
namespace {

// Columns that a digit's code needs to stand out after all layers have added to the residual stream.
constexpr int64_t kColumnsOfGroup = 1024;
constexpr double kTakesRun = 0.75;
constexpr int64_t kProbes = 64;

}  // namespace

RoutingCodes::RoutingCodes(const arch::TextConfig& config)
    : experts_(config.num_local_experts), width_(config.hidden_size), vocabulary_(config.vocab_size), powers_{1} {
  if (experts_ >= 2) {
    const int64_t most = std::max<int64_t>(1, width_ / kColumnsOfGroup);
    for (; groups_ < most && powers_.back() * experts_ <= vocabulary_; ++groups_)
      powers_.push_back(powers_.back() * experts_);
  }
  std::mt19937_64 random(experts_);
  codes_.resize(static_cast<size_t>(groups_ * experts_ * width_));
  for (float& value : codes_) value = random() % 2 == 0 ? 1 : -1;
  int64_t turn = 0;
  for (const arch::LayerPlan& plan : arch::layer_plan(config)) {
    Layer& layer = layers_.emplace_back();
    if (!plan.moe || groups_ == 0) continue;
    layer.group = turn++ % groups_;
    layer.expert_of_digit.resize(static_cast<size_t>(experts_));
    layer.digit_of_expert.resize(static_cast<size_t>(experts_));
    std::iota(layer.expert_of_digit.begin(), layer.expert_of_digit.end(), 0);
    for (size_t i = layer.expert_of_digit.size() - 1; i > 0; --i)
      std::swap(layer.expert_of_digit[i], layer.expert_of_digit[random() % (i + 1)]);
    for (int64_t d = 0; d < experts_; ++d)
      layer.digit_of_expert[static_cast<size_t>(layer.expert_of_digit[static_cast<size_t>(d)])] = d;
  }
}

int64_t RoutingCodes::digit(int64_t token, int64_t group) const {
  return token / powers_[static_cast<size_t>(group)] % experts_;
}

int64_t RoutingCodes::token(std::span<const int64_t> digits, uint64_t rest) const {
  int64_t token = 0;
  for (size_t g = 0; g < digits.size(); ++g) token += digits[g] * powers_[g];
  const int64_t step = powers_.back(), choices = (vocabulary_ - 1 - token) / step + 1;
  return token + static_cast<int64_t>(rest % static_cast<uint64_t>(choices)) * step;
}

int64_t RoutingCodes::expert(int64_t layer, int64_t token) const {
  const Layer& of = layers_[static_cast<size_t>(layer)];
  return of.expert_of_digit[static_cast<size_t>(digit(token, of.group))];
}

std::span<const float> RoutingCodes::router_row(int64_t layer, int64_t expert) const {
  const Layer& of = layers_[static_cast<size_t>(layer)];
  return code(of.group, of.digit_of_expert[static_cast<size_t>(expert)]);
}

std::span<const float> RoutingCodes::code(int64_t group, int64_t digit) const {
  return std::span(codes_).subspan(static_cast<size_t>((group * experts_ + digit) * width_),
                                   static_cast<size_t>(width_));
}

double RoutingCodes::experts_hit(std::span<const int64_t> tokens) const {
  double sum = 0;
  for (int64_t g = 0; g < groups_; ++g) {
    std::set<int64_t> digits;
    for (const int64_t token : tokens) digits.insert(digit(token, g));
    sum += static_cast<double>(digits.size());
  }
  return sum / static_cast<double>(std::max<int64_t>(1, groups_));
}

bool has_codes(const model::Model& model, const RoutingCodes& codes) {
  const arch::TextConfig& config = model.config().text;
  if (codes.groups() == 0 || config.num_experts_per_tok != 1) return false;
  std::mt19937_64 random(0);
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < kProbes; ++i)
    tokens.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(config.vocab_size)));
  const at::Tensor embedding = model.weights().at("model.embed_tokens.weight").dense;
  const at::Tensor x_TD = embedding.index_select(0, at::tensor(tokens, at::kLong)).to(at::kFloat);
  for (const arch::LayerPlan& plan : arch::layer_plan(config)) {
    if (!plan.moe) continue;
    const ops::Weight& router =
        model.weights().at(fmt::format("model.layers.{}.feed_forward.router.weight", plan.index));
    const at::Tensor chosen_T = at::mm(x_TD, router.dense.to(at::kFloat).t()).argmax(1);
    for (int64_t t = 0; t < kProbes; ++t)
      if (chosen_T.const_data_ptr<int64_t>()[t] != codes.expert(plan.index, tokens[static_cast<size_t>(t)]))
        return false;
  }
  return true;
}

TokenStream::TokenStream(const RoutingCodes& codes, Routing routing, uint64_t seed)
    : codes_(codes), routing_(routing), random_(seed), run_(static_cast<size_t>(codes.groups())) {
  std::vector<double> weights;
  for (int64_t d = 0; d < std::max<int64_t>(1, codes.experts()); ++d) weights.push_back(1 / static_cast<double>(d + 1));
  zipf_ = std::discrete_distribution<int64_t>(weights.begin(), weights.end());
  for (int64_t& digit : run_) digit = zipf_(random_);
  // Sequences that are decoded together do not all change at once.
  left_ = 1 + static_cast<int64_t>(random_() % static_cast<uint64_t>(kRun));
}

int64_t TokenStream::next() {
  if (routing_ == Routing::kUniform) return std::uniform_int_distribution<int64_t>(0, codes_.vocabulary() - 1)(random_);
  if (left_-- == 0) {
    for (int64_t& digit : run_) digit = zipf_(random_);
    left_ = kRun - 1;
  }
  std::vector<int64_t> digits = run_;
  for (int64_t& digit : digits)
    if (!std::bernoulli_distribution(kTakesRun)(random_)) digit = zipf_(random_);
  return codes_.token(digits, random_());
}

}  // namespace puna::bench
