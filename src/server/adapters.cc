#include "server/adapters.h"

#include <fmt/format.h>

#include "base/memory.h"
#include "server/api_error.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr size_t kMost = 64, kLongestName = 200;

}  // namespace

void Adapters::check_room(const std::filesystem::path& directory) const {
  std::error_code none;
  const auto size = std::filesystem::file_size(directory / "adapter_model.safetensors", none);
  // In the file, as stored, and in the model's type, which may be twice as wide.
  const int64_t need = none ? 0 : 3 * static_cast<int64_t>(std::min<uintmax_t>(size, uintmax_t{1} << 60));
  const int64_t available = available_memory_bytes();
  if (need > available)
    throw ApiError(503,
                   fmt::format("The adapter needs {} of memory and {} are available; unload another first.",
                               format_bytes(need), format_bytes(available)),
                   "lora_path", "out_of_memory");
}

void Adapters::load(const std::string& name, const std::filesystem::path& directory) {
  if (name.empty() || name.size() > kLongestName)
    throw ApiError(400, fmt::format("'lora_name' must have 1 to {} bytes", kLongestName), "lora_name");
  {
    const std::lock_guard lock(mutex_);
    if (entries_.size() >= kMost)
      throw ApiError(409, fmt::format("{} adapters are loaded; unload one first.", kMost), "lora_name");
    if (!entries_.emplace(name, Entry{nullptr, unix_time()}).second)
      throw ApiError(409, fmt::format("There is an adapter '{}' already; unload it first.", name), "lora_name");
  }
  try {
    check_room(directory);
    auto adapter = engine_.add_adapter(directory);
    const std::lock_guard lock(mutex_);
    entries_.at(name).adapter = std::move(adapter);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    entries_.erase(name);
    throw;
  }
}

bool Adapters::unload(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(name);
  if (at == entries_.end() || !at->second.adapter) return false;
  entries_.erase(at);
  return true;
}

std::shared_ptr<const engine::RequestAdapter> Adapters::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(name);
  return at == entries_.end() ? nullptr : at->second.adapter;
}

std::vector<std::pair<std::string, int64_t>> Adapters::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, int64_t>> result;
  for (const auto& [name, entry] : entries_)
    if (entry.adapter) result.emplace_back(name, entry.created);
  return result;
}

}  // namespace puna::server
