#include "quant/files.h"

#include "base/error.h"
#include "base/memory.h"
#include "io/file.h"

namespace puna::quant {
namespace fs = std::filesystem;

void check_free_space(const fs::path& dir, int64_t needed) {
  std::error_code ec;
  const auto space = fs::space(dir, ec);
  if (ec || static_cast<int64_t>(space.available) >= needed) return;
  fail(dir.string(), "the model needs {} on disk, {} are free; make room or choose another directory",
       format_bytes(needed), format_bytes(static_cast<int64_t>(space.available)));
}

void write_index(const fs::path& out, const Plan& plan) {
  if (plan.num_shards() == 1) return;
  Json index = {{"metadata", {{"total_size", plan.bytes}}}, {"weight_map", Json::object()}};
  for (size_t s = 0; s < plan.num_shards(); ++s)
    for (size_t i = plan.shard_begin[s]; i < plan.shard_begin[s + 1]; ++i)
      for (const io::TensorSpec& spec : plan.tensors[i].stored) index["weight_map"][spec.name] = plan.shard_name(s);
  io::write_file(out / "model.safetensors.index.json", index.dump(2) + "\n");
}

void write_config(const fs::path& out, const arch::Llama4Config& config, const Plan& plan) {
  Json json = arch::config_to_hf(config);
  if (Json quantization = quantization_config(config, plan); !quantization.is_null())
    json["quantization_config"] = std::move(quantization);
  io::write_file(out / "config.json", json.dump(2) + "\n");
}

}  // namespace puna::quant
