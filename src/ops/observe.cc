#include "ops/observe.h"

#include <utility>

namespace puna::ops {
namespace {

thread_local LinearObserver* current = nullptr;

}  // namespace

Observing::Observing(LinearObserver& observer) : previous_(std::exchange(current, &observer)) {}
Observing::~Observing() { current = previous_; }

LinearObserver* observer() { return current; }

}  // namespace puna::ops
