// The mixture-of-experts layer against the plain definition: one token, one expert at a time (SPEC 3, MoE).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/model/support.h"

namespace puna::test {
namespace {

at::Tensor plain_ffn(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& down) {
  const at::Tensor g = at::mv(gate, x);
  return at::mv(down, g * g.sigmoid() * at::mv(up, x));
}

// The feed-forward output of one token of layer `i`, from its normed input.
at::Tensor plain_experts(const model::Model& model, int i, const at::Tensor& x) {
  const arch::TextConfig& config = model.config().text;
  const std::string prefix = fmt::format("model.layers.{}.feed_forward.", i);
  const auto w = [&](const char* name) { return model.weights().at(prefix + name).dense; };
  at::Tensor y = plain_ffn(x, w("shared_expert.gate_proj.weight"), w("shared_expert.up_proj.weight"),
                           w("shared_expert.down_proj.weight"));
  const at::Tensor logits = at::mv(w("router.weight"), x);
  const at::Tensor scores =
      config.router_activation == arch::RouterActivation::kSigmoid ? logits.sigmoid() : logits.softmax(0);
  std::vector<int64_t> order(logits.size(0));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater<>(), [&](int64_t e) { return logits[e].item<float>(); });
  const int64_t F = config.intermediate_size;
  for (int64_t a = 0; a < config.num_experts_per_tok; ++a) {
    const int64_t e = order[a];
    const at::Tensor gate_up = w("experts.gate_up_proj")[e].t(), down = w("experts.down_proj")[e].t();
    const bool on_input = config.score_on == arch::ScoreOn::kInput;
    const at::Tensor z = on_input ? x * scores[e] : x;
    const at::Tensor out = plain_ffn(z, gate_up.narrow(0, 0, F), gate_up.narrow(0, F, F), down);
    y = y + (on_input ? out : out * scores[e]);
  }
  return y;
}

void expect_plain(const arch::Llama4Config& config) {
  const auto model = random_model(config, 7);
  model::Trace trace;
  model->forward(model::Batch::single(random_ids(14, 90, 3)), &trace);
  const at::Tensor x = trace.at("embeds") + trace.at("layers.0.attn_out");
  const at::Tensor unit = x * (x.square().mean(-1, true) + config.text.rms_norm_eps).rsqrt();
  const at::Tensor normed = unit * model->weights().at("model.layers.0.post_attention_layernorm.weight").dense;
  for (int64_t t = 0; t < 14; ++t)
    EXPECT_TRUE(tensors_close(trace.at("layers.0.ffn_out")[t], plain_experts(*model, 0, normed[t]), 2e-5)) << t;
}

// What others got wrong: sigmoid on the expert's input, shared expert unscaled, gate half first, no renormalisation.
TEST(Routing, EveryOptionEqualsThePlainDefinition) {
  for (const auto activation : {arch::RouterActivation::kSigmoid, arch::RouterActivation::kSoftmax}) {
    for (const auto score_on : {arch::ScoreOn::kInput, arch::ScoreOn::kOutput}) {
      for (const int64_t experts_per_token : {1, 2, 4}) {
        SCOPED_TRACE(fmt::format("softmax {} output {} top {}", activation == arch::RouterActivation::kSoftmax,
                                 score_on == arch::ScoreOn::kOutput, experts_per_token));
        arch::Llama4Config config = small_config();
        config.text.router_activation = activation;
        config.text.score_on = score_on;
        config.text.num_experts_per_tok = experts_per_token;
        expect_plain(config);
      }
    }
  }
}

TEST(Routing, TopOneSigmoidOnTheInputIsTheDefault) {
  const arch::TextConfig config;
  EXPECT_EQ(config.num_experts_per_tok, 1);
  EXPECT_EQ(config.router_activation, arch::RouterActivation::kSigmoid);
  EXPECT_EQ(config.score_on, arch::ScoreOn::kInput);
}

TEST(Routing, UnusedExpertsAreNeverRead) {
  const arch::Llama4Config config = small_config();
  const at::Tensor ids = random_ids(3, 90, 4);
  const auto model = random_model(config, 2);
  model::Trace trace;
  const at::Tensor expected = model->forward(model::Batch::single(ids), &trace);
  int spoiled = 0;
  for (const int64_t layer : config.text.moe_layers) {
    const at::Tensor selected = trace.at(fmt::format("layers.{}.selected", layer));
    for (int64_t e = 0; e < config.text.num_local_experts; ++e) {
      if ((selected == e).any().item<bool>()) continue;
      for (const char* name : {"gate_up_proj", "down_proj"})
        model->weights()
            .at(fmt::format("model.layers.{}.feed_forward.experts.{}", layer, name))
            .dense[e]
            .fill_(std::nan(""));
      ++spoiled;
    }
  }
  ASSERT_GT(spoiled, 0);
  EXPECT_TRUE(tensors_close(model->forward(model::Batch::single(ids)), expected, 0));
}

TEST(Routing, TiesGoToTheLowestExpertEveryTime) {
  const auto equal_rows = [](const arch::ParamRow& row, at::Tensor& t) {
    if (row.kind == arch::ParamKind::kRouter) t = t.narrow(0, 0, 1).expand_as(t).contiguous();
  };
  for (const int64_t experts_per_token : {1, 2}) {
    arch::Llama4Config config = small_config();
    config.text.num_experts_per_tok = experts_per_token;
    const auto model = random_model(config, 5, at::kFloat, equal_rows);
    model::Trace trace;
    model->forward(model::Batch::single(random_ids(40, 90, 5)), &trace);
    const at::Tensor selected = trace.at("layers.0.selected");
    for (int64_t a = 0; a < experts_per_token; ++a) EXPECT_TRUE((selected.select(1, a) == a).all().item<bool>());
  }
}

}  // namespace
}  // namespace puna::test
