#include "train/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/memory.h"
#include "io/write_failure.h"

namespace puna::train {
namespace {

void write_all(int fd, std::string_view text, const std::filesystem::path& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(path.string(), "cannot be written: {}; then go on with --resume", io::write_failure(errno));
    text.remove_prefix(static_cast<size_t>(written));
  }
}

io::Descriptor open_for_append(const std::filesystem::path& path) {
  io::Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (fd.get() < 0) fail(path.string(), "cannot be opened: {}", std::strerror(errno));
  return fd;
}

double mean_of(const LossSum& sum) { return sum.nll / static_cast<double>(sum.targets); }

}  // namespace

double OutlierDetector::push(double value) {
  double z = 0;
  if (values_.size() >= kFewest) {
    double mean = 0, variance = 0;
    for (const double v : values_) mean += v;
    mean /= static_cast<double>(values_.size());
    for (const double v : values_) variance += (v - mean) * (v - mean);
    variance /= static_cast<double>(values_.size());
    if (variance > 0) z = (value - mean) / std::sqrt(variance);
  }
  values_.push_back(value);
  if (values_.size() > kWindow) values_.pop_front();
  return z;
}

Json OutlierDetector::state() const { return values_; }
void OutlierDetector::restore(const Json& state) { values_ = state.get<std::deque<double>>(); }

void judge(StepReport& report, double outlier_z, OutlierDetector& losses, OutlierDetector& norms) {
  if (report.targets == 0) return;
  report.loss_z = losses.push(report.result.loss);
  report.norm_z = norms.push(report.result.grad_norm);
  report.loss_outlier = report.loss_z > outlier_z;
  report.norm_outlier = report.norm_z > outlier_z;
}

std::string metrics_line(const StepReport& report, const std::vector<std::string>& source_names, bool details) {
  const StepResult& result = report.result;
  Json json = {{"step", report.step},
               {"stage", report.stage},
               {"loss", result.loss},
               {"grad_norm", result.grad_norm},
               {"learning_rate", report.learning_rate},
               {"tokens", report.all_tokens},
               {"targets", report.targets}};
  if (result.auxiliary_loss != 0) json["auxiliary_loss"] = result.auxiliary_loss;
  if (report.images > 0) json["images"] = report.images;
  if (report.loss_outlier) json["loss_z"] = report.loss_z;
  if (report.norm_outlier) json["grad_norm_z"] = report.norm_z;
  if (!report.warnings.empty()) json["warnings"] = report.warnings;
  if (!report.validation.empty()) {
    LossSum all;
    for (const auto& [name, sum] : report.validation) {
      json["eval"]["source_loss"][name] = mean_of(sum);
      all.nll += sum.nll;
      all.targets += sum.targets;
    }
    json["eval"]["loss"] = mean_of(all);
  }
  if (details) {
    for (size_t i = 0; i < result.by_source.size(); ++i)
      if (result.by_source[i].targets > 0) json["source_loss"][source_names[i]] = mean_of(result.by_source[i]);
    json["position_loss"] = Json::array();
    for (const LossSum& bucket : result.by_position)
      json["position_loss"].push_back(bucket.targets > 0 ? Json(mean_of(bucket)) : Json(nullptr));
    json["experts"] = Json::array();
    for (const LayerLoad& load : report.loads) json["experts"].push_back(to_json(load));
  }
  return json.dump();
}

RunLog::RunLog(const std::filesystem::path& dir, int64_t metrics_bytes, int64_t first_step)
    : dir_(dir), metrics_bytes_(metrics_bytes), events_(dir, first_step) {
  metrics_ = open_for_append(dir / "metrics.jsonl");
  struct stat status = {};
  if (::fstat(metrics_.get(), &status) != 0 || status.st_size < metrics_bytes)
    fail((dir / "metrics.jsonl").string(), "has {} bytes, the checkpoint was made after {}; was it cut?",
         static_cast<int64_t>(status.st_size), metrics_bytes);
  if (::ftruncate(metrics_.get(), metrics_bytes) != 0)
    fail((dir / "metrics.jsonl").string(), "cannot be cut back to the checkpoint: {}", std::strerror(errno));
  timing_ = open_for_append(dir / "timing.jsonl");
}

void RunLog::sync() const {
  if (::fsync(metrics_.get()) != 0)
    fail((dir_ / "metrics.jsonl").string(), "cannot be written: {}; then go on with --resume",
         io::write_failure(errno));
}

void RunLog::write(const StepReport& report, const std::vector<std::string>& source_names, bool details) {
  const std::string line = metrics_line(report, source_names, details) + "\n";
  write_all(metrics_.get(), line, dir_ / "metrics.jsonl");
  metrics_bytes_ += static_cast<int64_t>(line.size());
  const double tokens_per_second = static_cast<double>(report.tokens) / report.seconds;
  const Json timing = {{"step", report.step},
                       {"seconds", report.seconds},
                       {"tokens_per_second", tokens_per_second},
                       {"flops", report.flops},
                       {"mfu", report.mfu},
                       {"data_wait_seconds", report.data_wait_seconds},
                       {"peak_bytes", peak_resident_memory_bytes()}};
  write_all(timing_.get(), timing.dump() + "\n", dir_ / "timing.jsonl");
  events_.scalar("train/loss", report.step, report.result.loss);
  events_.scalar("train/grad_norm", report.step, report.result.grad_norm);
  events_.scalar("train/learning_rate", report.step, report.learning_rate);
  events_.scalar("speed/tokens_per_second", report.step, tokens_per_second);
  events_.scalar("speed/mfu", report.step, report.mfu);
  for (const auto& [name, sum] : report.validation) events_.scalar("eval_loss/" + name, report.step, mean_of(sum));
  if (!details) return;
  for (size_t i = 0; i < report.result.by_source.size(); ++i)
    if (report.result.by_source[i].targets > 0)
      events_.scalar("source_loss/" + source_names[i], report.step, mean_of(report.result.by_source[i]));
  for (const LayerLoad& load : report.loads) {
    events_.scalar(fmt::format("experts/layer{}/max_violation", load.layer), report.step, load.max_violation);
    events_.scalar(fmt::format("experts/layer{}/load_entropy", load.layer), report.step, load.load_entropy);
  }
  events_.flush();
}

}  // namespace puna::train
