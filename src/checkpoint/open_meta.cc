// Meta's directories: params.json and consolidated.NN.pth, one file per model-parallel rank.
#include <fmt/format.h>

#include "base/error.h"
#include "checkpoint/assemble.h"
#include "checkpoint/stored_model.h"
#include "io/pth.h"

namespace puna::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxShards = 1024;

/// consolidated.00.pth, .01 and so on without a gap, or consolidated.pth.
std::vector<fs::path> shard_paths(const fs::path& dir) {
  std::vector<fs::path> paths;
  std::error_code ec;
  int present = 0;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string name = entry.path().filename().string();
    present += name.starts_with("consolidated.") && name.ends_with(".pth");
  }
  for (int i = 0; i < kMaxShards; ++i) {
    const fs::path path = dir / fmt::format("consolidated.{:02}.pth", i);
    if (!fs::is_regular_file(path, ec)) break;
    paths.push_back(path);
  }
  if (paths.empty() && fs::is_regular_file(dir / "consolidated.pth", ec)) paths.push_back(dir / "consolidated.pth");
  if (paths.empty()) fail(dir.string(), "has params.json but no consolidated.00.pth; is the download complete?");
  if (present != static_cast<int>(paths.size()))
    fail(dir.string(), "has {} consolidated files but '{}' is missing; is the download complete?", present,
         fmt::format("consolidated.{:02}.pth", paths.size()));
  return paths;
}

}  // namespace

std::unique_ptr<ModelSource> open_meta(const fs::path& dir) {
  const fs::path params = dir / "params.json";
  arch::Llama4Config config = arch::config_from_meta(read_json_file(params), params.string());
  const auto paths = shard_paths(dir);
  std::vector<io::TensorFile> files;
  for (const auto& path : paths) files.push_back(io::open_pth(path));

  Problems problems;
  std::vector<Binder> binders;
  int64_t stored_bytes = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    binders.emplace_back(files[i], problems, files.size() > 1 ? paths[i].filename().string() + ":" : "");
    for (const auto& view : files[i].tensors())
      if (arch::is_known_extra(view.name, arch::NameFormat::kMeta)) binders[i].ignore(view.name);
    stored_bytes += files[i].total_bytes();
  }
  auto rows = arch::parameter_table(config);
  std::vector<StoredRow> stored;
  stored.reserve(rows.size());
  for (const auto& row : rows)
    stored.push_back(assemble(row, arch::stored_forms(config, row, arch::NameFormat::kMeta), binders, dense_dtypes()));
  for (auto& binder : binders) binder.note_extras();
  problems.raise(dir.string(), "is params.json this model's, and is every consolidated file downloaded?");

  std::string format = "Meta " + main_dtype_name(files[0].tensors());
  if (files.size() > 1) format += fmt::format(" in {} shards", files.size());
  return std::make_unique<StoredModel>(std::move(config), std::move(rows), std::move(stored), format, stored_bytes);
}

}  // namespace puna::checkpoint
