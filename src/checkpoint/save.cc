#include "checkpoint/save.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/stored_matrix.h"
#include "io/file.h"
#include "io/safetensors.h"

namespace puna::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kHeaderBytesPerRow = 512;  // generous: a name, a shape and offsets

struct Shard {
  std::vector<size_t> rows;
  int64_t bytes = 0;
};

DType stored_dtype(at::ScalarType dtype) {
  if (is_loadable(dtype)) return *dtype_of(dtype);
  fail("save", "cannot save as {}; choose float32, bfloat16, float16 or float64", c10::toString(dtype));
}

/// Rows in table order, a new shard whenever the next row would not fit.
std::vector<Shard> split(const std::vector<arch::ParamRow>& rows, DType dtype, int64_t max_bytes) {
  std::vector<Shard> shards(1);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto elements = checked_numel(rows[i].shape);
    const auto bytes = elements ? dtype_bytes(dtype, *elements) : std::nullopt;
    PUNA_CHECK(bytes, "'{}' is too large", rows[i].name);
    if (!shards.back().rows.empty() && shards.back().bytes + *bytes > max_bytes) shards.emplace_back();
    shards.back().rows.push_back(i);
    shards.back().bytes += *bytes;
  }
  return shards;
}

void check_free_space(const fs::path& dir, int64_t needed) {
  std::error_code ec;
  const auto space = fs::space(dir, ec);
  if (ec || static_cast<int64_t>(space.available) >= needed) return;
  fail(dir.string(), "the model needs {} on disk, {} are free; make room or choose another directory",
       format_bytes(needed), format_bytes(static_cast<int64_t>(space.available)));
}

/// Two models in one directory would be read as one, and an older one may be all that its owner has.
void check_no_model(const fs::path& dir) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || (name.starts_with("model") && name.ends_with(".safetensors")))
      fail(dir.string(), "already holds a model ({}); choose another directory or remove it first", name);
  }
}

class Saver {
 public:
  Saver(const arch::Llama4Config& config, std::vector<arch::ParamRow> rows, at::ScalarType dtype,
        const std::function<at::Tensor(const arch::ParamRow&)>& tensor_of, int64_t total_bytes)
      : config_(config),
        rows_(std::move(rows)),
        dtype_(dtype),
        tensor_of_(tensor_of),
        progress_("Saving", total_bytes, Progress::Unit::kBytes) {}

  void write(const fs::path& path, const Shard& shard) {
    std::vector<io::TensorSpec> specs;
    for (size_t i : shard.rows)
      specs.push_back({arch::hf_name(config_, rows_[i]), stored_dtype(dtype_), rows_[i].shape});
    io::SafetensorsWriter writer(path, std::move(specs), {{"format", "pt"}});
    for (size_t i : shard.rows) write_row(writer, rows_[i]);
    writer.commit();
  }

  std::string name_of(size_t row) const { return arch::hf_name(config_, rows_[row]); }

 private:
  void write_row(io::SafetensorsWriter& writer, const arch::ParamRow& row) {
    const at::Tensor given = tensor_of_(row);
    PUNA_CHECK(given.defined() && given.sizes() == at::IntArrayRef(row.shape), "'{}' has another shape", row.name);
    const at::Tensor tensor = given.detach().to(at::kCPU, dtype_).contiguous();
    writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
    progress_.add(static_cast<int64_t>(tensor.nbytes()));
  }

  const arch::Llama4Config& config_;
  std::vector<arch::ParamRow> rows_;
  at::ScalarType dtype_;
  const std::function<at::Tensor(const arch::ParamRow&)>& tensor_of_;
  Progress progress_;
};

/// Meta's sampling. A token that the model lacks is -1 in the config and left out.
Json generation_config(const arch::Llama4Config& config) {
  Json json = {{"eos_token_id", config.eos_token_ids}, {"do_sample", true}, {"temperature", 0.6}, {"top_p", 0.9}};
  if (config.bos_token_id >= 0) json["bos_token_id"] = config.bos_token_id;
  if (config.pad_token_id >= 0) json["pad_token_id"] = config.pad_token_id;
  return json;
}

}  // namespace

void save_hf(const fs::path& dir, const arch::Llama4Config& config, at::ScalarType dtype,
             const std::function<at::Tensor(const arch::ParamRow&)>& tensor_of, int64_t max_shard_bytes) {
  arch::Llama4Config saved = config;
  saved.dtype = stored_dtype(dtype);
  const Json config_json = arch::config_to_hf(saved);
  auto rows = arch::parameter_table(config);
  const auto shards = split(rows, saved.dtype, max_shard_bytes);
  int64_t total = 0;
  for (const Shard& shard : shards) total += shard.bytes;

  std::error_code ec;
  fs::create_directories(dir, ec);
  if (!fs::is_directory(dir, ec)) fail(dir.string(), "cannot make this directory");
  check_no_model(dir);
  check_free_space(dir, total + static_cast<int64_t>(rows.size()) * kHeaderBytesPerRow);

  Saver saver(saved, std::move(rows), dtype, tensor_of, total);
  Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", Json::object()}};
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name = shards.size() == 1 ? std::string("model.safetensors")
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    saver.write(dir / name, shards[s]);
    for (size_t row : shards[s].rows) index["weight_map"][saver.name_of(row)] = name;
  }
  if (shards.size() > 1) io::write_file(dir / "model.safetensors.index.json", index.dump(2) + "\n");
  io::write_file(dir / "generation_config.json", generation_config(config).dump(2) + "\n");
  io::write_file(dir / "config.json", config_json.dump(2) + "\n");
}

void copy_side_files(const fs::path& from, const fs::path& to) {
  constexpr std::array kNames = {"tokenizer.json",           "tokenizer.model",       "tokenizer_config.json",
                                 "special_tokens_map.json",  "chat_template.jinja",   "chat_template.json",
                                 "preprocessor_config.json", "processor_config.json", "generation_config.json"};
  constexpr int64_t kMaxBytes = 256 << 20;
  std::error_code ec;
  if (fs::equivalent(from, to, ec)) return;
  for (const char* name : kNames)
    if (fs::is_regular_file(from / name, ec)) io::write_file(to / name, io::read_file(from / name, kMaxBytes));
}

}  // namespace puna::checkpoint
