// Which format a path is, by what lies there.
#include <algorithm>

#include "base/error.h"
#include "checkpoint/packed_file.h"
#include "checkpoint/stored_model.h"
#include "io/file.h"

namespace puna::checkpoint {
namespace fs = std::filesystem;
namespace {

bool is_file(const fs::path& path) {
  std::error_code ec;
  return fs::is_regular_file(path, ec);
}

/// The one file in `dir` with this extension; empty when there is none or there are several.
fs::path only_file(const fs::path& dir, std::string_view extension) {
  fs::path found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    if (entry.path().extension() != extension || !is_file(entry.path())) continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

std::unique_ptr<ModelSource> open_directory(const fs::path& dir) {
  if (is_file(dir / "params.json")) return open_meta(dir);
  if (is_file(dir / "config.json")) {
    if (is_file(dir / kPackedFile)) return std::make_unique<PackedModel>(dir);
    for (const char* name : {"model.safetensors", "model.safetensors.index.json"})
      if (is_file(dir / name)) return open_hf(dir / "config.json", dir / name);
    if (const fs::path single = only_file(dir, ".safetensors"); !single.empty())
      return open_hf(dir / "config.json", single);
    fail(dir.string(),
         "has config.json but no model.safetensors or model.safetensors.index.json; is the download complete?");
  }
  if (const fs::path gguf = only_file(dir, ".gguf"); !gguf.empty()) return open_gguf_model(gguf);
  fail(dir.string(),
       "holds no model: expected config.json with safetensors, params.json with consolidated.*.pth, or one .gguf file");
}

}  // namespace

std::unique_ptr<ModelSource> open_model(const fs::path& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return open_directory(path);
  if (!io::path_exists(path)) fail(path.string(), "there is no such file or directory");
  const fs::path dir = path.parent_path();
  const std::string extension = path.extension().string();
  if (extension == ".gguf") return open_gguf_model(path);
  if (extension == ".safetensors" || path.string().ends_with(".safetensors.index.json")) {
    if (!is_file(dir / "config.json"))
      fail(path.string(), "needs the model's config.json beside it in '{}'", dir.empty() ? "." : dir.string());
    return open_hf(dir / "config.json", path);
  }
  if (extension == ".pth") {
    if (!is_file(dir / "params.json"))
      fail(path.string(), "needs the model's params.json beside it in '{}'", dir.empty() ? "." : dir.string());
    return open_meta(dir.empty() ? fs::path(".") : dir);
  }
  if (path.filename() == "config.json" || path.filename() == "params.json")
    return open_directory(dir.empty() ? fs::path(".") : dir);
  fail(path.string(),
       "is no model that Puna reads: a Hugging Face or Meta directory, .gguf, .safetensors or .pth file");
}

}  // namespace puna::checkpoint
