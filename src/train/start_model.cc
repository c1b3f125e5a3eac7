#include "train/start_model.h"

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/model_source.h"
#include "checkpoint/save.h"
#include "io/directory.h"
#include "io/file.h"
#include "text/tokenizer.h"
#include "text/tokenizer_write.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";      // of <run_dir>/from; written last
constexpr const char* kWhole = "copied_from.json";  // of <run_dir>/tokenizer; written last

void make_empty(const fs::path& dir) {
  fs::remove_all(dir);
  io::make_directories(dir);
}

}  // namespace

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  constexpr int64_t kMaxBytes = 256 << 20;
  if (fs::is_directory(from))
    checkpoint::copy_side_files(from, to);
  else if (from.extension() == ".gguf")
    text::write_tokenizer(to, text::tokenizer_tables(from), from.string());
  else
    io::write_file(to / (from.extension() == ".json" ? "tokenizer.json" : "tokenizer.model"),
                   io::read_file(from, kMaxBytes));
}

fs::path keep_tokenizer(const fs::path& from, const fs::path& run_dir, bool begun) {
  const fs::path dir = run_dir / "tokenizer";
  if (begun && io::path_exists(dir / kWhole)) return dir;
  text::Tokenizer::open(from);  // an error names where it comes from, not the copy
  make_empty(dir);
  copy_tokenizer(from, dir);
  io::write_file(dir / kWhole, Json(fs::absolute(from).string()).dump() + "\n");
  return dir;
}

StartModel keep_start_model(const fs::path& from, const fs::path& run_dir, bool begun) {
  const fs::path dir = run_dir / "from", path = dir / kConfig;
  if (!begun || !io::path_exists(path)) {
    const arch::Llama4Config config = checkpoint::open_model(from)->config();
    make_empty(dir);
    if (config.vision)
      io::write_file(
          dir / "preprocessor_config.json",
          media::image_processor_json(media::image_processor_config(from, config.vision->image_size)).dump(2) + "\n");
    io::write_file(path, arch::config_to_hf(config).dump(2) + "\n");
  }
  // At the start as later: what is read is the copy.
  try {
    StartModel start = {arch::config_from_hf(read_json_file(path), path.string()), {}};
    if (start.config.vision)
      start.image_processor = media::image_processor_config(dir, start.config.vision->image_size);
    return start;
  } catch (const Error& error) {
    fail(dir.string(),
         "is of the model that the run began with and cannot be read; remove this directory, and the next start copies "
         "it again: {}",
         error.what());
  }
}

}  // namespace puna::train
