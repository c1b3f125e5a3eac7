#include "quant/quantise.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "checkpoint/save.h"
#include "checkpoint/scalar_type.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "quant/files.h"
#include "quant/matrix.h"
#include "quant/output.h"
#include "quant/plan.h"
#include "quant/state.h"

namespace puna::quant {
namespace fs = std::filesystem;
using namespace internal;
namespace {

constexpr int64_t kHeaderBytesPerTensor = 512;  // generous: a name, a shape and offsets

/// Rows of the source, and their matrices quantised.
class MatrixReader {
 public:
  MatrixReader(const checkpoint::ModelSource& source, const Plan& plan, const QuantiseOptions& options)
      : source_(source), plan_(plan), options_(options), dense_(*checkpoint::scalar_type(dense_dtype(source))) {}

  int64_t source_bytes(const PlannedTensor& tensor) const {
    return tensor.elements * static_cast<int64_t>(c10::elementSize(dense_));
  }

  /// The row in the source's own type: the mapped bytes where they are it. The experts of a row follow one another.
  const at::Tensor& load(size_t row) {
    stop_if_interrupted(options_.interrupt);
    if (row != loaded_row_ || !loaded_.defined()) {
      loaded_.reset();
      loaded_ = source_.load(plan_.rows[row], dense_), loaded_row_ = row;
    }
    return loaded_;
  }

  /// `inputs`: null without calibration.
  QuantisedMatrix quantise(const PlannedTensor& tensor, const InputStatistics* inputs, Progress& progress) {
    const at::Tensor matrix = matrix_of(tensor);
    const int64_t out = tensor.shape[0], in = tensor.shape[1], slab = std::max<int64_t>(1, kSlabElements / in);
    MatrixQuantiser quantiser(out, in, tensor.format, tensor.stored[1].dtype,
                              inputs ? std::span<const float>(inputs->importance) : std::span<const float>(),
                              inputs ? inputs->factor : at::Tensor());
    for (int64_t r = 0; r < out; r += slab) {
      stop_if_interrupted(options_.interrupt);
      const int64_t count = std::min(slab, out - r);
      const at::Tensor floats = matrix.narrow(0, r, count).to(at::kFloat).contiguous();
      if (!quantiser.add(floats.const_data_ptr<float>(), count, options_.threads))
        fail(tensor.name, "holds weights that are not finite; is the download complete?");
      progress.add(count * in * static_cast<int64_t>(c10::elementSize(dense_)));
    }
    return quantiser.finish();
  }

 private:
  /// [out, in] as a view of the loaded row.
  at::Tensor matrix_of(const PlannedTensor& tensor) {
    const at::Tensor& row = load(tensor.row);
    if (tensor.expert < 0) return row.view({tensor.shape[0], tensor.shape[1]});
    return row.select(0, tensor.expert).narrow(1, tensor.first_col, tensor.shape[0]).t();
  }

  const checkpoint::ModelSource& source_;
  const Plan& plan_;
  const QuantiseOptions& options_;
  at::ScalarType dense_;
  at::Tensor loaded_;
  size_t loaded_row_ = 0;
};

/// Sets the errors of rare experts, which `plan` has in their format. What an interrupted run measured is kept.
void measure(RareExperts& rare, const checkpoint::ModelSource& source, const Plan& plan, const QuantiseOptions& options,
             RunState& state) {
  struct Sums {
    double error = 0, norm = 0;
  };
  MatrixReader reader(source, plan, options);
  std::map<std::string, double> errors = state.errors();
  std::map<std::pair<int64_t, int64_t>, Sums> sums;
  const auto place_of = [&](const PlannedTensor& tensor) {
    return std::pair(plan.rows[tensor.row].layer, tensor.expert);
  };
  const auto key_of = [](const auto& place) { return fmt::format("{}.{}", place.first, place.second); };
  std::vector<const PlannedTensor*> missing;
  int64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!rare.experts.contains(place_of(tensor)) || errors.contains(key_of(place_of(tensor)))) continue;
    missing.push_back(&tensor);
    bytes += reader.source_bytes(tensor);
  }
  Progress progress("Measuring rare experts", bytes, Progress::Unit::kBytes);
  for (size_t i = 0; i < missing.size(); ++i) {
    const auto place = place_of(*missing[i]);
    const QuantisedMatrix quantised = reader.quantise(*missing[i], nullptr, progress);
    sums[place].error += quantised.squared_error, sums[place].norm += quantised.squared_norm;
    if (i + 1 < missing.size() && place_of(*missing[i + 1]).first == place.first) continue;
    for (const auto& [of, sum] : sums) errors[key_of(of)] = sum.norm > 0 ? std::sqrt(sum.error / sum.norm) : 0;
    sums.clear();
    state.set_errors(errors);  // of a whole layer: gate and up of all experts come before down
  }
  for (auto& [place, expert] : rare.experts) expert.error = errors.at(key_of(place));
}

class ModelQuantiser {
 public:
  ModelQuantiser(const checkpoint::ModelSource& source, const Plan& plan, const QuantiseOptions& options)
      : plan_(plan),
        options_(options),
        reader_(source, plan, options),
        progress_("Quantising", total_bytes(), Progress::Unit::kBytes) {}

  std::vector<TensorReport> write(const fs::path& path, size_t shard) {
    const auto [begin, end] = range(shard);
    std::vector<io::TensorSpec> specs;
    for (size_t i = begin; i < end; ++i)
      specs.insert(specs.end(), plan_.tensors[i].stored.begin(), plan_.tensors[i].stored.end());
    io::SafetensorsWriter writer(path, std::move(specs), {{"format", "pt"}});
    std::vector<TensorReport> reports;
    for (size_t i = begin; i < end; ++i) {
      const PlannedTensor& tensor = plan_.tensors[i];
      reports.push_back(tensor.format.quantised() ? write_quantised(writer, tensor) : write_kept(writer, tensor));
    }
    writer.commit();
    return reports;
  }

  void skip(size_t shard) {
    const auto [begin, end] = range(shard);
    for (size_t i = begin; i < end; ++i) progress_.add(reader_.source_bytes(plan_.tensors[i]));
  }

 private:
  std::pair<size_t, size_t> range(size_t shard) const {
    return {plan_.shard_begin[shard], plan_.shard_begin[shard + 1]};
  }

  int64_t total_bytes() const {
    int64_t total = 0;
    for (const PlannedTensor& tensor : plan_.tensors) total += reader_.source_bytes(tensor);
    return total;
  }

  TensorReport report_of(const PlannedTensor& tensor) const {
    return {.name = tensor.name,
            .part = part_of(plan_.rows[tensor.row]),
            .format = format_name(tensor.format),
            .shape = tensor.shape,
            .source_bytes = reader_.source_bytes(tensor),
            .bytes = tensor.bytes};
  }

  TensorReport write_kept(io::SafetensorsWriter& writer, const PlannedTensor& tensor) {
    const at::Tensor stored =
        reader_.load(tensor.row).to(*checkpoint::scalar_type(tensor.stored[0].dtype)).contiguous();
    writer.write(bytes_of(stored));
    progress_.add(reader_.source_bytes(tensor));
    return report_of(tensor);
  }

  TensorReport write_quantised(io::SafetensorsWriter& writer, const PlannedTensor& tensor) {
    const InputStatistics* inputs =
        options_.statistics ? options_.statistics(plan_.rows[tensor.row].name, tensor.expert) : nullptr;
    const QuantisedMatrix quantised = reader_.quantise(tensor, inputs, progress_);
    writer.write(quantised.values);
    writer.write(quantised.scales);
    if (!quantised.zero_points.empty()) writer.write(quantised.zero_points);
    if (tensor.format.code != Code::kFp8) writer.write(std::as_bytes(std::span(tensor.shape)));
    TensorReport report = report_of(tensor);
    report.squared_error = quantised.squared_error, report.squared_norm = quantised.squared_norm;
    return report;
  }

  const Plan& plan_;
  const QuantiseOptions& options_;
  MatrixReader reader_;
  Progress progress_;
};

}  // namespace

DType dense_dtype(const checkpoint::ModelSource& source) {
  const DType dtype = source.config().dtype;
  return dtype == DType::F32 || dtype == DType::F16 ? dtype : DType::BF16;
}

QuantiseReport quantise_model(const fs::path& path, const checkpoint::ModelSource& source, const fs::path& out,
                              const QuantiseOptions& options) {
  options.rules.check_layout(false, "--to");
  std::optional<RareExperts> rare = options.rare;
  const auto planned = [&] {
    return make_plan(source.config(), options.rules, dense_dtype(source), options.max_shard_bytes,
                     rare.value_or(RareExperts()));
  };
  Plan plan = planned();
  const auto lock = io::lock_directory(out);
  if (!lock) fail(out.string(), "another process is writing here; wait for it or choose another directory");
  const std::string more = options.calibration_id + (rare ? rare->json().dump() : "");
  internal::RunState state(out, internal::identity_of(path, options.rules, plan, more));
  if (rare) {
    measure(*rare, source, plan, options, state);
    plan = planned();
  }

  QuantiseReport report;
  report.rare = rare;
  report.kept = plan.kept;
  std::vector<Json> finished;
  int64_t missing = 0;
  for (size_t s = 0; s < plan.num_shards(); ++s) {
    finished.push_back(state.finished(plan.shard_name(s)));
    for (size_t i = plan.shard_begin[s]; finished[s].is_null() && i < plan.shard_begin[s + 1]; ++i)
      missing += plan.tensors[i].bytes + kHeaderBytesPerTensor;
  }
  check_free_space(out, missing);

  {
    ModelQuantiser quantiser(source, plan, options);
    for (size_t s = 0; s < plan.num_shards(); ++s) {
      std::vector<TensorReport> reports;
      if (finished[s].is_null()) {
        reports = quantiser.write(out / plan.shard_name(s), s);
        state.add(plan.shard_name(s), reports_json(reports));
      } else {
        reports = reports_from(finished[s], out);
        quantiser.skip(s);
        ++report.shards_found;
      }
      report.tensors.insert(report.tensors.end(), reports.begin(), reports.end());
    }
  }
  std::error_code ec;
  checkpoint::copy_side_files(fs::is_directory(path, ec) ? path : path.parent_path(), out);
  write_index(out, plan);
  io::write_file(out / "quantization_report.json", report.json().dump(1) + "\n");
  arch::Llama4Config config = source.config();
  config.dtype = dense_dtype(source);
  write_config(out, config, plan);
  state.remove();
  return report;
}

}  // namespace puna::quant
