#include "bench/random_source.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>

#include "base/error.h"
#include "bench/random_values.h"

namespace puna::bench {

RandomSource::RandomSource(const arch::Llama4Config& config, const quant::Rules& rules, uint64_t seed)
    : rules_(rules), codes_(config.text), seed_(seed) {
  config_ = config;
  rows_ = arch::parameter_table(config);
}

uint64_t RandomSource::seed_of(const arch::ParamRow& row, int64_t matrix, int64_t begin) const {
  std::seed_seq mixed = {seed_, static_cast<uint64_t>(std::hash<std::string>()(row.name)),
                         static_cast<uint64_t>(matrix), static_cast<uint64_t>(begin)};
  uint32_t words[2];
  mixed.generate(std::begin(words), std::end(words));
  return uint64_t{words[0]} << 32 | words[1];
}

std::optional<checkpoint::IntegerRow> RandomSource::integers(const arch::ParamRow& row) const {
  const quant::Format& format = rules_.of(row);
  const bool four = format.code == quant::Code::kInt4, routed = row.shape.size() == 3;
  if (!format.quantised()) return std::nullopt;
  const int64_t in = row.shape[1], out = routed ? row.shape[2] : row.shape[0];
  if (!format.fits(in)) return std::nullopt;
  const int64_t matrices = routed ? row.shape[0] : 1;
  if (format.code == quant::Code::kFp8)
    return checkpoint::IntegerRow{{{out, in, kernels::WeightFormat::e4m3()}, matrices}};
  const bool whole = format.group == 0;
  const kernels::WeightFormat stored = {.bits = four ? 4 : 8,
                                        .group = whole ? (in % 128 == 0 ? 128 : 32) : format.group,
                                        .channel_scales = whole,
                                        .zeros = !format.symmetric};
  return checkpoint::IntegerRow{{{out, in, stored}, matrices}};
}

void RandomSource::read_integers(const arch::ParamRow& row, int64_t matrix, int64_t begin, int64_t end,
                                 const checkpoint::IntegerBlock& out) const {
  const auto integers = this->integers(row);
  PUNA_CHECK(integers, "'{}' is kept", row.name);
  const kernels::WeightShape shape = integers->shapes[matrix];
  const bool four = shape.format.bits == 4;
  std::mt19937_64 random(seed_of(row, matrix, begin));
  const int64_t count = (end - begin) * shape.k;
  for (int64_t i = 0; i < count;) {
    uint64_t bits = shape.format.floats ? random() : without_least(random(), shape.format.bits);
    for (int j = 0; j < 64 / shape.format.bits && i < count; ++j, bits >>= shape.format.bits)
      out.q[i++] = static_cast<int8_t>(four ? static_cast<int>(bits & 15) - 8 : static_cast<int>(bits & 255) - 128);
  }
  if (shape.format.floats) make_numbers(std::as_writable_bytes(std::span(out.q, static_cast<size_t>(count))));
  const int64_t groups = (end - begin) * (shape.format.channel_scales ? 1 : kernels::packed_layout(shape).blocks);
  std::fill_n(out.scales, groups, static_cast<float>(scale_of(rules_.of(row).code, shape.k)));
  if (out.zeros) std::fill_n(out.zeros, groups, int8_t{0});
}

at::Tensor RandomSource::load(const arch::ParamRow& row, at::ScalarType dtype) const {
  PUNA_CHECK(!integers(row), "'{}' is not kept", row.name);
  const at::Tensor values = at::empty(row.shape, at::kBFloat16);
  KeptValues(row, codes_, config_.text.num_hidden_layers, seed_of(row, 0, 0))
      .next({static_cast<uint16_t*>(values.mutable_data_ptr()), static_cast<size_t>(values.numel())});
  return values.to(dtype);
}

}  // namespace puna::bench
