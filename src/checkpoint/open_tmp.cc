#include "base/error.h"
#include "checkpoint/stored_model.h"
namespace puna::checkpoint {
std::unique_ptr<ModelSource> open_meta(const std::filesystem::path& dir) { fail(dir.string(), "x"); }
std::unique_ptr<ModelSource> open_gguf_model(const std::filesystem::path& path) { fail(path.string(), "x"); }
}  // namespace puna::checkpoint
