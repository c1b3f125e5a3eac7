#include "engine/adapters.h"

#include <atomic>

#include "base/error.h"

namespace puna::engine {
namespace {

// Of all engines: several may share a model.
std::atomic<int> last_number = ops::LowRank::kAlways;

}  // namespace

RequestAdapters::RequestAdapters(const LoadedModel& loaded, std::function<void()> changed) : loaded_(loaded) {
  changes_->changed = std::move(changed);
}

RequestAdapters::~RequestAdapters() {
  {
    const std::lock_guard lock(changes_->mutex);
    changes_->changed = nullptr;
  }
  for (const int number : present_) loaded_.model->remove_adapter(number);
}

std::shared_ptr<const RequestAdapter> RequestAdapters::add(checkpoint::Adapter adapter) {
  loaded_.model->check_adapter(adapter);
  for (checkpoint::AdapterWeight& weight : adapter.weights) {
    if (!weight.parameter.starts_with("model.") && !weight.parameter.starts_with("lm_head."))
      fail("adapter " + adapter.name, "changes '{}'; one that requests name can change the text model alone",
           weight.parameter);
    // Here, so that the engine need not wait for it.
    weight.a = weight.a.to(loaded_.device, loaded_.dtype);
    weight.b = weight.b.to(loaded_.device, loaded_.dtype);
  }
  const int number = ++last_number;
  auto drop = [changes = changes_](const RequestAdapter* held) {
    {
      const std::lock_guard dropping(changes->mutex);
      // One that the engine has not met yet is forgotten at once, so that what waits is what somebody holds.
      if (std::erase_if(changes->added, [&](const auto& one) { return one.second == held->number; }) == 0) {
        changes->dropped.push_back(held->number);
        changes->tell();
      }
    }
    delete held;
  };
  std::shared_ptr<const RequestAdapter> handle(new RequestAdapter{adapter.name, number}, drop);
  const std::lock_guard lock(changes_->mutex);
  changes_->added.emplace_back(std::move(adapter), number);
  changes_->tell();
  return handle;
}

void RequestAdapters::update() {
  std::vector<std::pair<checkpoint::Adapter, int>> added;
  std::vector<int> dropped;
  {
    const std::lock_guard lock(changes_->mutex);
    added.swap(changes_->added);
    dropped.swap(changes_->dropped);
    changes_->any = false;
  }
  for (const auto& [adapter, number] : added) {
    loaded_.model->add_adapter(adapter, number);
    present_.push_back(number);
  }
  for (const int number : dropped) {
    loaded_.model->remove_adapter(number);
    std::erase(present_, number);
  }
}

}  // namespace puna::engine
