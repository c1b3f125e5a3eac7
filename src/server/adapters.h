// Adapters that requests name as their model, loaded and unloaded while the server runs.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace puna::server {

class Adapters {
 public:
  /// `engine` must outlive it.
  explicit Adapters(engine::Engine& engine) : engine_(engine) {}

  /// Reads a PEFT directory. Throws ApiError for a name that is taken and when memory or places are lacking, Error for
  /// files that are wrong or fit another model.
  void load(const std::string& name, const std::filesystem::path& directory);
  /// Running requests keep it; false when there is none of that name.
  bool unload(const std::string& name);
  /// Null when there is none of that name.
  std::shared_ptr<const engine::RequestAdapter> find(const std::string& name) const;
  /// With the time at which each was loaded, by name.
  std::vector<std::pair<std::string, int64_t>> list() const;

 private:
  struct Entry {
    std::shared_ptr<const engine::RequestAdapter> adapter;  // null while it is read
    int64_t created;
  };
  void check_room(const std::filesystem::path& directory) const;

  engine::Engine& engine_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace puna::server
