#include "engine/adapters.h"

namespace puna::engine {

std::shared_ptr<const RequestAdapter> RequestAdapters::add(const model::Model& model, checkpoint::Adapter adapter) {
  model.check_adapter(adapter);
  const std::lock_guard lock(changes_->mutex);
  const int number = changes_->next++;
  auto drop = [changes = changes_](const RequestAdapter* held) {
    {
      const std::lock_guard dropping(changes->mutex);
      changes->dropped.push_back(held->number);
    }
    delete held;
  };
  std::shared_ptr<const RequestAdapter> handle(new RequestAdapter{adapter.name, number}, drop);
  changes_->added.emplace_back(std::move(adapter), number);
  return handle;
}

void RequestAdapters::update(model::Model& model) {
  std::vector<std::pair<checkpoint::Adapter, int>> added;
  std::vector<int> dropped;
  {
    const std::lock_guard lock(changes_->mutex);
    added.swap(changes_->added);
    dropped.swap(changes_->dropped);
  }
  for (const auto& [adapter, number] : added) model.add_adapter(adapter, number);
  for (const int number : dropped) model.remove_adapter(number);
}

}  // namespace puna::engine
