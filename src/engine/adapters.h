// Adapters that requests may ask for, loaded and dropped while the engine runs.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/adapter.h"
#include "engine/loaded_model.h"

namespace puna::engine {

/// One in the model's memory. It is dropped when the last request and everybody else have let go of it.
struct RequestAdapter {
  std::string name;
  int number;  // of LowRank::adapter; never used again
};

class RequestAdapters {
 public:
  /// `changed` is called, from any thread, when update() has something to do.
  RequestAdapters(const LoadedModel& loaded, std::function<void()> changed);
  /// Takes all out of the model.
  ~RequestAdapters();

  /// Throws Error for one that does not fit the model, or changes its vision: images are encoded before it is known who
  /// asks about them. Any thread.
  std::shared_ptr<const RequestAdapter> add(checkpoint::Adapter adapter);
  /// Does what has been asked for since; between two steps.
  void update();
  bool has_changes() const { return changes_->any; }

 private:
  /// It outlives the engine when somebody still holds an adapter.
  struct Changes {
    std::mutex mutex;
    std::function<void()> changed;  // empty once the engine is gone
    std::vector<std::pair<checkpoint::Adapter, int>> added;
    std::vector<int> dropped;
    std::atomic<bool> any = false;
    void tell() {
      any = true;
      if (changed) changed();
    }
  };
  const LoadedModel& loaded_;
  std::vector<int> present_;  // numbers in the model
  std::shared_ptr<Changes> changes_ = std::make_shared<Changes>();
};

}  // namespace puna::engine
