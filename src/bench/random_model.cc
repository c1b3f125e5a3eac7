#include "bench/random_model.h"

#include <algorithm>
#include <random>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "bench/random_source.h"
#include "bench/random_values.h"
#include "checkpoint/packed_file.h"
#include "io/safetensors.h"
#include "quant/files.h"
#include "quant/plan.h"

namespace puna::bench {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{8} << 20;
constexpr int64_t kHeaderBytesPerTensor = 512;

class Weights {
 public:
  Weights(const RandomModelOptions& options, const quant::Plan& plan)
      : options_(options),
        plan_(plan),
        codes_(options.config.text),
        random_(options.seed),
        progress_("Writing", plan.bytes, Progress::Unit::kBytes) {}

  void write(const fs::path& path, size_t begin, size_t end) {
    std::vector<io::TensorSpec> specs;
    for (size_t i = begin; i < end; ++i)
      specs.insert(specs.end(), plan_.tensors[i].stored.begin(), plan_.tensors[i].stored.end());
    io::SafetensorsWriter writer(path, std::move(specs), {{"format", "pt"}});
    for (size_t i = begin; i < end; ++i) write(writer, plan_.tensors[i]);
    writer.commit();
  }

 private:
  void write(io::SafetensorsWriter& writer, const quant::PlannedTensor& tensor) {
    if (!tensor.format.quantised()) return write_kept(writer, tensor);
    const bool fp8 = tensor.format.code == quant::Code::kFp8;
    write_bits(writer, bytes_of(tensor.stored[0]), tensor.format.code);
    write_constant(writer, bytes_of(tensor.stored[1]), bf16(scale_of(tensor.format.code, tensor.shape[1])));
    size_t next = 2;
    // A zero point of 8 in every 4 bits: the middle, as symmetric formats have it.
    if (!tensor.format.symmetric) write_constant(writer, bytes_of(tensor.stored[next++]), 0x8888);
    if (!fp8) writer.write(std::as_bytes(std::span(tensor.shape)));
  }

  void write_kept(io::SafetensorsWriter& writer, const quant::PlannedTensor& tensor) {
    KeptValues values(plan_.rows[tensor.row], codes_, options_.config.text.num_hidden_layers, random_());
    write_pieces(writer, bytes_of(tensor.stored[0]), [&](std::span<uint16_t> piece) { values.next(piece); });
  }

  void write_bits(io::SafetensorsWriter& writer, int64_t bytes, quant::Code code) {
    write_pieces(writer, bytes, [&](std::span<uint16_t> piece) {
      for (size_t i = 0; i < piece.size();) {
        uint64_t bits = random_();
        if (code != quant::Code::kFp8) bits = without_least(bits, code == quant::Code::kInt4 ? 4 : 8);
        for (int j = 0; j < 4 && i < piece.size(); ++j, bits >>= 16) piece[i++] = static_cast<uint16_t>(bits);
      }
      if (code != quant::Code::kFp8) return;
      make_numbers(std::as_writable_bytes(piece));
    });
  }

  void write_constant(io::SafetensorsWriter& writer, int64_t bytes, uint16_t value) {
    write_pieces(writer, bytes, [&](std::span<uint16_t> piece) { std::fill(piece.begin(), piece.end(), value); });
  }

  template <class Fill>
  void write_pieces(io::SafetensorsWriter& writer, int64_t bytes, const Fill& fill) {
    for (int64_t done = 0; done < bytes;) {
      stop_if_interrupted(options_.interrupt);
      const int64_t count = std::min<int64_t>(bytes - done, kPieceBytes);
      piece_.resize(static_cast<size_t>((count + 1) / 2));
      fill(std::span(piece_));
      writer.write(std::as_bytes(std::span(piece_)).first(static_cast<size_t>(count)));
      progress_.add(count);
      done += count;
    }
  }

  static int64_t bytes_of(const io::TensorSpec& spec) {
    int64_t elements = 1;
    for (const int64_t side : spec.shape) elements *= side;
    return dtype_bytes(spec.dtype, elements).value();
  }

  const RandomModelOptions& options_;
  const quant::Plan& plan_;
  RoutingCodes codes_;
  std::mt19937_64 random_;
  Progress progress_;
  std::vector<uint16_t> piece_;
};

void write_random_packed(const fs::path& out, const arch::Llama4Config& config, const RandomModelOptions& options) {
  const RandomSource source(config, options.rules, options.seed);
  checkpoint::write_packed(out, source, out, options.threads, options.interrupt);  // nothing lies beside the source
}

}  // namespace

void write_random_model(const fs::path& out, const RandomModelOptions& options) {
  arch::Llama4Config config = options.config;
  config.dtype = DType::BF16;
  std::error_code ec;
  if (fs::exists(out, ec) && !(fs::is_directory(out, ec) && fs::is_empty(out, ec)))
    fail(out.string(), "has something in it; name a directory that is empty or not there");
  for (const arch::ParamRow& row : arch::parameter_table(config))
    if (const int bits = options.rules.of(row).bits(); bits == 2 || bits == 3)
      fail(out.string(), "random weights are of 4, 8 and 16 bits, not of {}", bits);
  if (options.packed) return write_random_packed(out, config, options);
  const quant::Plan plan = quant::make_plan(config, options.rules, DType::BF16, options.max_shard_bytes);
  fs::create_directories(out, ec);
  if (ec) fail(out.string(), "cannot be made: {}", ec.message());
  quant::check_free_space(out, plan.bytes + static_cast<int64_t>(plan.tensors.size()) * kHeaderBytesPerTensor);
  {
    Weights weights(options, plan);
    for (size_t s = 0; s < plan.num_shards(); ++s)
      weights.write(out / plan.shard_name(s), plan.shard_begin[s], plan.shard_begin[s + 1]);
  }
  quant::write_index(out, plan);
  quant::write_config(out, config, plan);
}

}  // namespace puna::bench
