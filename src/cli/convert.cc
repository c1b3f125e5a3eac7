#include "cli/convert.h"

#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/error.h"
#include "base/interrupt.h"
#include "checkpoint/save.h"
#include "checkpoint/scalar_type.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "io/file.h"
#include "quant/gguf_metadata.h"
#include "quant/gguf_model.h"
#include "text/tokenizer_write.h"

namespace puna::cli {
namespace fs = std::filesystem;
namespace {

struct ConvertFlags {
  std::string model, to, out, dtype = "auto";
};

fs::path directory_of(const std::string& model) {
  std::error_code ec;
  const fs::path path = model;
  return fs::is_directory(path, ec) ? path : path.has_parent_path() ? path.parent_path() : fs::path(".");
}

DType dtype_of(const ConvertFlags& flags, const checkpoint::ModelSource& source) {
  if (flags.dtype == "auto") return quant::dense_dtype(source);
  return flags.dtype == "fp32" ? DType::F32 : flags.dtype == "fp16" ? DType::F16 : DType::BF16;
}

void convert_to_hf(const ConvertFlags& flags, const checkpoint::ModelSource& source, const std::atomic<bool>& stop) {
  const at::ScalarType dtype = *checkpoint::scalar_type(dtype_of(flags, source));
  checkpoint::save_hf(flags.out, source.config(), dtype, [&](const arch::ParamRow& row) {
    stop_if_interrupted(&stop);
    return source.load(row, dtype);
  });
  if (flags.model.ends_with(".gguf"))
    text::write_tokenizer(flags.out, text::tokenizer_tables(flags.model), flags.model);
  else
    checkpoint::copy_side_files(directory_of(flags.model), flags.out);
}

void run_convert(const ConvertFlags& flags) {
  for (const auto& [name, value] : {std::pair("--model", &flags.model), {"--to", &flags.to}, {"--out", &flags.out}})
    if (value->empty()) throw UsageError(name, "is missing; convert needs --model, --to and --out");
  InterruptGuard interrupt;
  const auto source = checkpoint::open_model(flags.model);
  if (flags.to == "hf") {
    convert_to_hf(flags, *source, interrupt.flag());
  } else {
    const auto tokenizer = tokenizer_of(flags.model);
    say_beyond_llama_cpp(*source);
    quant::QuantiseOptions options;
    options.interrupt = &interrupt.flag();
    quant::write_gguf(flags.model, *source, tokenizer, flags.out, dtype_of(flags, *source), options);
  }
  print_now(fmt::format("Wrote {}\n", flags.out));
}

}  // namespace

text::TokenizerTables tokenizer_of(const std::string& model) {
  if (model.ends_with(".gguf")) return text::tokenizer_tables(model);
  const fs::path dir = directory_of(model);
  if (io::path_exists(dir / "tokenizer.json") || io::path_exists(dir / "tokenizer.model"))
    return text::tokenizer_tables(dir);
  say_aside(
      fmt::format("'{}' has no tokenizer.json: the GGUF file will hold none and take token ids alone.", dir.string()));
  return {};
}

void say_beyond_llama_cpp(const checkpoint::ModelSource& source) {
  if (source.config().vision) say_aside("GGUF holds the text model alone: vision is left out.");
  const auto beyond = quant::beyond_llama_cpp(source.config());
  if (!beyond.empty())
    say_aside(fmt::format("llama.cpp cannot run this model and will say so; Puna can. GGUF has no key for: {}.",
                          fmt::join(beyond, "; ")));
}

void add_convert(CLI::App& app) {
  auto flags = std::make_shared<ConvertFlags>();
  CLI::App* command =
      app.add_subcommand("convert", "Write a model of any format as Hugging Face directory or GGUF file");
  command->add_option("--model", flags->model, "Directory, .gguf, .safetensors or .pth")->type_name("PATH");
  command->add_option("--to", flags->to, "hf or gguf")->check(CLI::IsMember({"hf", "gguf"}))->type_name("FORMAT");
  command->add_option("--dtype", flags->dtype, "bf16, fp16 or fp32; auto: as stored, bf16 for quantised weights")
      ->check(CLI::IsMember({"auto", "bf16", "fp16", "fp32"}))
      ->type_name("TYPE")
      ->capture_default_str();
  command->add_option("--out", flags->out, "Directory, or for GGUF the file, to write")->type_name("PATH");
  command->footer(
      "Weights are written tensor by tensor, quantised ones dequantised; to fewer bits: puna quantize.\n"
      "Example:\n  puna convert --model ./llama4-meta --to hf --out ./scout");
  command->callback([flags] { run_convert(*flags); });
}

}  // namespace puna::cli
