// PEFT adapters: the weights' changes equal PEFT's own, for linears, fused experts and one module per expert.
#include "checkpoint/adapter.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "io/safetensors.h"
#include "tests/checkpoint/fixtures.h"
#include "tests/support/golden.h"

namespace puna::checkpoint {
namespace {
namespace fs = std::filesystem;
using test::EditableCheckpoint;
using test::error_of;

/// The change of a row's tensor in its own layout: [out, in], or [E, in, out] for experts.
at::Tensor delta(const Adapter& adapter, const std::string& parameter) {
  at::Tensor sum;
  for (const auto& weight : adapter.weights) {
    if (weight.parameter != parameter) continue;
    at::Tensor change = at::matmul(weight.b.to(at::kFloat), weight.a.to(at::kFloat)) * weight.scale;
    if (change.dim() == 3) change = change.transpose(1, 2);
    sum = sum.defined() ? sum + change : change;
  }
  if (!sum.defined()) throw std::runtime_error("nothing adapts " + parameter);
  return sum;
}

arch::Llama4Config config_of(const std::string& golden) {
  const fs::path path = puna::test::golden_data() / golden / "config.json";
  return arch::config_from_hf(read_json_file(path), path.string());
}

/// An adapter directory that a test changes.
struct EditableAdapter {
  Json config = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}, {"peft_version", "0.21.2"}};
  EditableCheckpoint file;

  void add(const std::string& module, std::vector<int64_t> a, std::vector<int64_t> b) {
    for (const auto& [part, shape] : {std::pair("A", a), std::pair("B", b)}) {
      const std::string name = "base_model.model." + module + ".lora_" + part + ".weight";
      file.add(name, DType::F32, shape);
      const at::Tensor values = at::randn(shape);
      auto owner = std::make_shared<at::Tensor>(values);
      file.at(name).bytes = {static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()};
      file.at(name).owner = owner;
    }
  }
  at::Tensor value(const std::string& module, const std::string& part) {
    const auto& view = file.at("base_model.model." + module + ".lora_" + part + ".weight");
    return *std::static_pointer_cast<const at::Tensor>(view.owner);
  }
  Adapter open(const arch::Llama4Config& model) const {
    puna::test::TemporaryDirectory dir;
    std::ofstream(dir.path() / "adapter_config.json") << config.dump();
    io::write_safetensors(dir.path() / "adapter_model.safetensors", file.tensors);
    return open_adapter(dir.path(), model);
  }
};

TEST(Adapter, GoldenAdaptersHaveTheFilesValuesAndScales) {
  for (const auto& set : puna::test::golden_sets()) {
    if (!fs::exists(set / "lora")) continue;
    for (const auto& entry : fs::directory_iterator(set / "lora")) {
      SCOPED_TRACE(entry.path().string());
      const Json golden = read_json_file(entry.path() / "golden.json");
      const fs::path base = set / golden["base"].get<std::string>();
      const auto config = arch::config_from_hf(read_json_file(base / "config.json"), "config");
      const Adapter adapter = open_adapter(entry.path(), config);
      const auto file = io::open_safetensors(entry.path() / "adapter_model.safetensors");
      EXPECT_EQ(adapter.name, entry.path().filename());
      ASSERT_EQ(adapter.weights.size() * 2, file.tensors().size());
      for (const auto& weight : adapter.weights) {
        EXPECT_EQ(weight.scale, golden["scaling"].get<double>());
        const std::string module = weight.parameter.substr(0, weight.parameter.size() - 7);
        const std::string prefix = "base_model.model." + std::string(config.vision ? "language_model." : "") + module;
        EXPECT_TRUE(at::equal(weight.a, test::read_float(file, prefix + ".lora_A.weight"))) << module;
        EXPECT_TRUE(at::equal(weight.b, test::read_float(file, prefix + ".lora_B.weight"))) << module;
      }
    }
  }
}

TEST(Adapter, FusedExpertsChangeAsPeftComputesIt) {
  const fs::path dir = puna::test::golden_data().parent_path() / "lora_experts";
  const Adapter adapter = open_adapter(dir, config_of("ckpt/a_scout"));
  const auto golden = io::open_safetensors(dir / "golden.safetensors");
  int checked = 0;
  for (const auto& view : golden.tensors()) {
    if (!view.name.starts_with("delta.")) continue;
    const std::string parameter = view.name.substr(6, view.name.size() - 9);
    const at::Tensor want = test::read_float(golden, view.name), have = delta(adapter, parameter)[1].contiguous();
    ASSERT_EQ(have.sizes(), want.sizes());
    EXPECT_TRUE(puna::test::all_close({have.data_ptr<float>(), size_t(have.numel())},
                                      {want.data_ptr<float>(), size_t(want.numel())}, 1e-6))
        << parameter;
    ++checked;
  }
  EXPECT_EQ(checked, 2);
}

TEST(Adapter, RanksAndAlphasFollowThePatternsAndRslora) {
  const Adapter adapter =
      open_adapter(puna::test::golden_data().parent_path() / "lora_experts", config_of("ckpt/a_scout"));
  auto find = [&](const std::string& parameter) -> const AdapterWeight& {
    for (const auto& weight : adapter.weights)
      if (weight.parameter == parameter) return weight;
    throw std::runtime_error(parameter);
  };
  const auto& q = find("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(q.a.size(0), 4);
  EXPECT_DOUBLE_EQ(q.scale, 3 / std::sqrt(4.0));
  EXPECT_DOUBLE_EQ(find("model.layers.0.feed_forward.shared_expert.up_proj.weight").scale, 7 / std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(find("model.layers.2.feed_forward.experts.gate_up_proj").scale, 5 / std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(find("model.layers.3.feed_forward.experts.gate_up_proj").scale, 3 / std::sqrt(2.0));
  EXPECT_EQ(find("model.layers.3.feed_forward.experts.down_proj").a.size(1), 3);
}

TEST(Adapter, OneModulePerExpertFillsItsPartOfTheFusedWeight) {
  const auto config = config_of("ckpt/d_text");  // D 64, F 96, E 4
  const int64_t D = config.text.hidden_size, F = config.text.intermediate_size;
  const std::string experts = "model.layers.0.feed_forward.experts";
  EditableAdapter adapter;
  adapter.config["alpha_pattern"] = {{"experts.3.up_proj", 6}};
  adapter.add(experts + ".1.gate_proj", {2, D}, {F, 2});
  adapter.add(experts + ".1.up_proj", {2, D}, {F, 2});
  adapter.add(experts + ".3.up_proj", {2, D}, {F, 2});
  adapter.add(experts + ".2.down_proj", {2, F}, {D, 2});
  const Adapter opened = adapter.open(config);

  auto change = [&](const std::string& module, double scale) {
    return at::matmul(adapter.value(experts + module, "B"), adapter.value(experts + module, "A")).t() * scale;
  };
  at::Tensor gate_up = at::zeros({config.text.num_local_experts, D, 2 * F});
  gate_up[1].narrow(1, 0, F).copy_(change(".1.gate_proj", 2));
  gate_up[1].narrow(1, F, F).copy_(change(".1.up_proj", 2));
  gate_up[3].narrow(1, F, F).copy_(change(".3.up_proj", 3));
  at::Tensor down = at::zeros({config.text.num_local_experts, F, D});
  down[2].copy_(change(".2.down_proj", 2));
  EXPECT_TRUE(at::allclose(delta(opened, experts + ".gate_up_proj"), gate_up, 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(delta(opened, experts + ".down_proj"), down, 1e-5, 1e-6));
}

TEST(Adapter, RouterIsALinear) {
  const auto config = config_of("ckpt/d_text");
  const std::string router = "model.layers.0.feed_forward.router";
  EditableAdapter adapter;
  adapter.add(router, {2, config.text.hidden_size}, {config.text.num_local_experts, 2});
  EXPECT_TRUE(at::allclose(delta(adapter.open(config), router + ".weight"),
                           2 * at::matmul(adapter.value(router, "B"), adapter.value(router, "A"))));
}

TEST(Adapter, EveryProblemIsInOneError) {
  const auto config = config_of("ckpt/d_text");
  EditableAdapter adapter;
  adapter.add("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
  adapter.add("model.layers.99.self_attn.q_proj", {2, 64}, {64, 2});
  adapter.add("model.layers.1.self_attn.v_proj", {3, 64}, {32, 3});
  adapter.file.remove("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
  const std::string error = error_of([&] { adapter.open(config); });
  EXPECT_NE(error.find("1 missing: base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"), error.npos)
      << error;
  EXPECT_NE(error.find("2 not of this model: base_model.model.model.layers.99"), error.npos) << error;
  EXPECT_NE(error.find("has shape [3, 64], expected [2, 64]"), error.npos) << error;
}

TEST(Adapter, HostileConfigsAreOneError) {
  const auto config = config_of("ckpt/d_text");
  EditableAdapter adapter;
  adapter.add("model.layers.0.self_attn.q_proj", {2, config.text.hidden_size}, {64, 2});
  const auto error_with = [&](const char* key, const Json& value) {
    adapter.config[key] = value;
    const std::string error = error_of([&] { adapter.open(config); });
    adapter.config.erase(key);
    return error;
  };
  EXPECT_EQ(error_with("rank_pattern", {{"k_proj", 4}}), "");
  Json patterns = Json::object(), names = Json::array();
  for (int i = 0; i < 1001; ++i) {
    patterns[fmt::format("x{}", i)] = 2;
    names.push_back(fmt::format("x{}", i));
  }
  EXPECT_NE(error_with("rank_pattern", patterns).find("1001 patterns"), std::string::npos);
  EXPECT_NE(error_with("alpha_pattern", patterns).find("1001 patterns"), std::string::npos);
  EXPECT_NE(error_with("target_parameters", names).find("1001 names"), std::string::npos);
  EXPECT_NE(error_with("target_parameters", {{"k", "v"}}).find("expected a list of at most"), std::string::npos);
  // An object of very many keys would be slow to parse in its order.
  for (int i = 1001; i < 10'001; ++i) patterns[fmt::format("x{}", i)] = 2;
  EXPECT_NE(error_with("auto_mapping", patterns).find("more than 10000 keys"), std::string::npos);
}

TEST(Adapter, VariantsThatChangeTheArithmeticAreRefused) {
  const auto config = config_of("ckpt/d_text");
  const std::vector<std::pair<const char*, Json>> variants = {{"use_dora", true},
                                                              {"lora_bias", true},
                                                              {"bias", "all"},
                                                              {"modules_to_save", {"lm_head"}},
                                                              {"peft_type", "LOHA"},
                                                              {"init_lora_weights", "pissa_niter_4"},
                                                              {"r", 0},
                                                              {"rank_pattern", {{"q_proj", 1.5}}},
                                                              {"lora_alpha", "eight"},
                                                              {"alpha_pattern", {{"(", 1}}}};
  for (const auto& [key, value] : variants) {
    EditableAdapter adapter;
    adapter.config[key] = value;
    adapter.add("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
    EXPECT_NE(error_of([&] { adapter.open(config); }), "") << key;
  }
  EXPECT_NE(error_of([&] { open_adapter("/nonexistent", config); }).find("no adapter_config.json"), std::string::npos);
}

}  // namespace
}  // namespace puna::checkpoint
