#include "quant/state.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include <fmt/ranges.h>

#include "base/error.h"
#include "io/file.h"
#include "io/hash.h"

namespace puna::quant::internal {
namespace fs = std::filesystem;
namespace {

constexpr const char* kStateName = "quantize_state.json";
constexpr const char* kOther = "choose another directory or remove it first";

void add_file(const fs::path& path, std::vector<std::string>& lines) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  lines.push_back(fmt::format("{} {} {}.{}", path.filename().string(), status.st_size, status.st_mtim.tv_sec,
                              status.st_mtim.tv_nsec));
}

bool is_weights(const std::string& name) { return name.starts_with("model") && name.ends_with(".safetensors"); }

}  // namespace

std::string identity_of(const fs::path& source, const Rules& rules, const Plan& plan, const std::string& calibration) {
  std::vector<std::string> lines;
  std::error_code ec;
  if (fs::is_directory(source, ec))
    for (const auto& entry : fs::directory_iterator(source)) add_file(entry.path(), lines);
  else
    add_file(source, lines);
  std::sort(lines.begin(), lines.end());
  std::string text = fmt::format("{}\n{}\n", fmt::join(lines, "\n"), rules.json().dump());
  for (size_t begin : plan.shard_begin) text += fmt::format("{} ", begin);
  text += std::to_string(plan.bytes) + calibration;
  return io::hash_of(std::as_bytes(std::span(text)));
}

RunState::RunState(fs::path dir, std::string identity) : dir_(std::move(dir)) {
  if (io::path_exists(dir_ / "config.json")) fail(dir_.string(), "already holds a model; {}", kOther);
  json_ = {{"identity", identity}, {"files", Json::object()}};
  const bool resumed = io::path_exists(dir_ / kStateName);
  if (resumed) {
    Json found = read_json_file(dir_ / kStateName);
    if (!found.is_object() || found.value("identity", Json()) != identity || !found["files"].is_object())
      fail(dir_.string(), "holds part of another run (other model, rules or version); {}", kOther);
    json_ = std::move(found);
  }
  for (const auto& entry : fs::directory_iterator(dir_)) {
    const std::string name = entry.path().filename().string();
    if (!resumed && is_weights(name)) fail(dir_.string(), "already holds weights ({}); {}", name, kOther);
    const bool unfinished = name.find(".tmp.") != name.npos;
    if (unfinished && (resumed || name.starts_with(kStateName))) fs::remove(entry.path());
  }
  if (!resumed) io::write_file(dir_ / kStateName, json_.dump() + "\n");
}

Json RunState::finished(const std::string& file) const {
  const Json& files = json_["files"];
  const auto found = files.find(file);
  if (found == files.end() || !found->is_object() || !io::path_exists(dir_ / file)) return nullptr;
  if (found->value("hash", Json()) != io::hash_of_file(dir_ / file)) return nullptr;
  return found->value("report", Json());
}

void RunState::add(const std::string& file, Json report) {
  json_["files"][file] = {{"hash", io::hash_of_file(dir_ / file)}, {"report", std::move(report)}};
  io::write_file(dir_ / kStateName, json_.dump() + "\n");
}

std::map<std::string, double> RunState::errors() const {
  const auto found = json_.find("errors");
  if (found == json_.end()) return {};
  std::map<std::string, double> errors;
  for (const auto& [key, error] : found->items()) {
    if (!error.is_number() || !(error.get<double>() >= 0))
      fail(dir_.string(), "{} is damaged; remove the directory and begin anew", kStateName);
    errors[key] = error.get<double>();
  }
  return errors;
}

void RunState::set_errors(const std::map<std::string, double>& errors) {
  json_["errors"] = errors;
  io::write_file(dir_ / kStateName, json_.dump() + "\n");
}

void RunState::remove() { fs::remove(dir_ / kStateName); }

}  // namespace puna::quant::internal
