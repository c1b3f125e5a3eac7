// Adapters that requests may ask for, loaded and dropped while the engine runs.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "checkpoint/adapter.h"
#include "model/model.h"

namespace puna::engine {

/// One in the model's memory. It is dropped when the last request and everybody else have let go of it.
struct RequestAdapter {
  std::string name;
  int number;  // of LowRank::adapter; never used again
};

class RequestAdapters {
 public:
  /// Throws Error for one that does not fit the model. Any thread.
  std::shared_ptr<const RequestAdapter> add(const model::Model& model, checkpoint::Adapter adapter);
  /// Does what has been asked for since; between two steps.
  void update(model::Model& model);

 private:
  /// It outlives the engine when somebody still holds an adapter.
  struct Changes {
    std::mutex mutex;
    std::vector<std::pair<checkpoint::Adapter, int>> added;
    std::vector<int> dropped;
    int next = ops::LowRank::kAlways + 1;
  };
  std::shared_ptr<Changes> changes_ = std::make_shared<Changes>();
};

}  // namespace puna::engine
