#include "checkpoint/adapter.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/binder.h"
#include "checkpoint/scalar_type.h"
#include "io/safetensors.h"

namespace puna::checkpoint {
namespace {

constexpr std::string_view kBase = "base_model.model.";
constexpr std::array<std::string_view, 2> kFused = {"gate_up_proj", "down_proj"};  // the class's order

/// A copy in memory, as stored.
at::Tensor tensor_of(const io::TensorView& view) {
  const auto type = scalar_type(view.dtype);
  PUNA_CHECK(type, "'{}' is {}", view.name, dtype_name(view.dtype));
  at::Tensor out = at::empty(view.shape, at::TensorOptions(*type));
  std::copy(view.bytes.begin(), view.bytes.end(), static_cast<std::byte*>(out.data_ptr()));
  return out;
}

/// "...experts.3.gate_proj" -> the experts module, 3 and "gate_proj"; nullopt for other modules.
struct ExpertModule {
  std::string experts;
  int64_t expert;
  std::string linear;
};

std::optional<ExpertModule> expert_module(const std::string& module) {
  const size_t last = module.rfind('.');
  if (last == std::string::npos || last == 0) return std::nullopt;
  const size_t before = module.rfind('.', last - 1);
  if (before == std::string::npos || !module.substr(0, before).ends_with(".experts")) return std::nullopt;
  const std::string index = module.substr(before + 1, last - before - 1);
  if (index.empty() || index.size() > 6 || index.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return ExpertModule{module.substr(0, before), std::stoll(index), module.substr(last + 1)};
}

class AdapterReader {
 public:
  AdapterReader(const AdapterConfig& adapter, const arch::Llama4Config& config, const io::TensorFile& file)
      : adapter_(adapter), file_(file), binder_(file, problems_) {
    for (auto& row : arch::parameter_table(config)) rows_.emplace(row.name, row);
  }

  std::vector<AdapterWeight> read(std::string_view where) {
    for (const std::string& module : modules()) read_module(module);
    for (auto& [parameter, experts] : unfused_) join_experts(parameter, experts);
    binder_.note_extras();
    problems_.raise(where, "was the adapter trained for this model?");
    return std::move(weights_);
  }

 private:
  struct Factors {
    at::Tensor a, b;
    double scale;
  };
  struct ExpertFactors {
    int64_t expert;
    std::string linear;
    Factors factors;
  };

  /// Modules that have an A or a B, without PEFT's prefix, in the file's order.
  std::vector<std::string> modules() const {
    std::vector<std::string> result;
    std::set<std::string> seen;
    for (const auto& view : file_.tensors()) {
      const std::string_view name = view.name;
      if (!name.starts_with(kBase)) continue;
      for (std::string_view end : {".lora_A.weight", ".lora_B.weight"}) {
        if (!name.ends_with(end) || name.size() < kBase.size() + end.size()) continue;
        std::string module(name.substr(kBase.size(), name.size() - kBase.size() - end.size()));
        if (seen.insert(module).second) result.push_back(std::move(module));
      }
    }
    return result;
  }

  const arch::ParamRow* find_row(const std::string& hf_parameter) const {
    const auto found = rows_.find(arch::from_hf_name(hf_parameter));
    return found == rows_.end() ? nullptr : &found->second;
  }

  void read_module(const std::string& module) {
    if (const auto expert = expert_module(module)) return read_unfused(module, *expert);
    if (const size_t experts = module.find(".experts"); experts != std::string::npos)
      return read_fused(module, module.substr(0, experts + 8));
    const arch::ParamRow* row = find_row(module + ".weight");
    if (!row || row->shape.size() != 2 || row->kind == arch::ParamKind::kEmbedding)
      return;  // told as not of this model
    if (auto factors = take(module, module, row->shape[1], row->shape[0], 1))
      weights_.push_back({row->name, factors->a, factors->b, factors->scale});
  }

  /// A [num_experts * r, in] and B [out, num_experts * r] of `module`; the config's rank is that of `target`.
  std::optional<Factors> take(const std::string& module, const std::string& target, int64_t in, int64_t out,
                              int64_t num_experts) {
    const int64_t r = adapter_.rank(target) * num_experts;
    const std::string prefix = std::string(kBase) + module;
    const auto* a = binder_.take(prefix + ".lora_A.weight", {r, in}, dense_dtypes());
    const auto* b = binder_.take(prefix + ".lora_B.weight", {out, r}, dense_dtypes());
    if (!a || !b) return std::nullopt;
    return Factors{tensor_of(*a), tensor_of(*b), adapter_.scale(target)};
  }

  /// PEFT wraps an adapted parameter once more for each one of the same module, the class's first innermost.
  void read_fused(const std::string& module, const std::string& experts) {
    std::vector<std::string> targets;
    for (auto name : kFused)
      if (adapter_.targets_parameter(fmt::format("{}.{}", experts, name))) targets.emplace_back(name);
    std::string wrapper = experts;
    for (size_t i = targets.size(); i-- > 0; wrapper += ".base_layer")
      if (wrapper == module) return read_fused_parameter(module, experts + "." + targets[i]);
  }

  void read_fused_parameter(const std::string& module, const std::string& parameter) {
    const arch::ParamRow* row = find_row(parameter);
    if (!row || row->shape.size() != 3) return;
    const int64_t num_experts = row->shape[0], in = row->shape[1], out = row->shape[2];
    // Since 0.19 PEFT takes [E, in, out] for [E, out, in]: A multiplies what is the output here.
    const auto stored = binder_.shape_of(std::string(kBase) + module + ".lora_A.weight");
    const bool swapped =
        in != out ? !(stored && stored->size() == 2 && (*stored)[1] == in) : !adapter_.is_before_0_19();
    auto factors = take(module, parameter, swapped ? out : in, swapped ? in : out, num_experts);
    if (!factors) return;
    // A is [E * r, x] with experts outermost; B is [y, r * E] with experts innermost.
    const at::Tensor a = factors->a.view({num_experts, -1, factors->a.size(1)});
    const at::Tensor b = factors->b.view({factors->b.size(0), -1, num_experts});
    weights_.push_back(swapped ? AdapterWeight{row->name, b.permute({2, 1, 0}).contiguous(),
                                               a.transpose(1, 2).contiguous(), factors->scale}
                               : AdapterWeight{row->name, a, b.permute({2, 0, 1}).contiguous(), factors->scale});
  }

  void read_unfused(const std::string& module, const ExpertModule& expert) {
    const bool down = expert.linear == "down_proj";
    if (!down && expert.linear != "gate_proj" && expert.linear != "up_proj") return;
    const arch::ParamRow* row = find_row(expert.experts + (down ? ".down_proj" : ".gate_up_proj"));
    if (!row || expert.expert >= row->shape[0]) return;
    const int64_t out = down ? row->shape[2] : row->shape[2] / 2;
    if (auto factors = take(module, module, row->shape[1], out, 1))
      unfused_[row->name].push_back({expert.expert, expert.linear, std::move(*factors)});
  }

  /// One weight per linear: gate_proj and up_proj each fill their half of gate_up_proj's outputs.
  void join_experts(const std::string& parameter, const std::vector<ExpertFactors>& experts) {
    const auto& shape = rows_.at(parameter).shape;
    for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
      std::vector<const ExpertFactors*> chosen;
      int64_t rank = 0;
      for (const auto& expert : experts) {
        if (expert.linear != linear) continue;
        chosen.push_back(&expert);
        rank = std::max(rank, expert.factors.a.size(0));
      }
      if (chosen.empty()) continue;
      const auto type = chosen[0]->factors.a.options();
      at::Tensor a = at::zeros({shape[0], rank, shape[1]}, type), b = at::zeros({shape[0], shape[2], rank}, type);
      const double scale = chosen[0]->factors.scale;
      for (const auto* expert : chosen) {
        const auto& f = expert->factors;
        const int64_t first = std::string_view(linear) == "up_proj" ? shape[2] / 2 : 0;
        a[expert->expert].narrow(0, 0, f.a.size(0)).copy_(f.a);
        b[expert->expert]
            .narrow(0, first, f.b.size(0))
            .narrow(1, 0, f.b.size(1))
            .copy_(f.scale == scale ? f.b : f.b * (f.scale / scale));
      }
      weights_.push_back({parameter, a, b, scale});
    }
  }

  const AdapterConfig& adapter_;
  const io::TensorFile& file_;
  Problems problems_;
  Binder binder_;
  std::unordered_map<std::string, arch::ParamRow> rows_;
  std::map<std::string, std::vector<ExpertFactors>> unfused_;
  std::vector<AdapterWeight> weights_;
};

}  // namespace

Adapter open_adapter(const std::filesystem::path& dir, const arch::Llama4Config& config) {
  namespace fs = std::filesystem;
  std::error_code ec;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"})
    if (!fs::is_regular_file(dir / name, ec)) fail(dir.string(), "is no PEFT adapter: it has no {}", name);
  const AdapterConfig adapter = AdapterConfig::read(dir / "adapter_config.json");
  const io::TensorFile file = io::open_safetensors(dir / "adapter_model.safetensors");
  const fs::path named = fs::absolute(dir).lexically_normal();
  const std::string name = (named.has_filename() ? named : named.parent_path()).filename().string();
  return {name, AdapterReader(adapter, config, file).read((dir / "adapter_model.safetensors").string())};
}

}  // namespace puna::checkpoint
