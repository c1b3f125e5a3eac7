#include "ops/observe.h"

#include <utility>

namespace puna::ops {
namespace {

thread_local LinearObserver* current = nullptr;
thread_local std::vector<Routing>* current_routes = nullptr;

}  // namespace

Observing::Observing(LinearObserver& observer) : previous_(std::exchange(current, &observer)) {}
Observing::~Observing() { current = previous_; }

LinearObserver* observer() { return current; }

ObservingRoutes::ObservingRoutes(std::vector<Routing>& routes) : previous_(std::exchange(current_routes, &routes)) {}
ObservingRoutes::~ObservingRoutes() { current_routes = previous_; }

std::vector<Routing>* observed_routes() { return current_routes; }

}  // namespace puna::ops
