#include "base/env.h"

#include <cstdlib>

namespace puna::env {
namespace {

std::optional<std::string> get(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

}  // namespace

bool no_color() { return get("NO_COLOR").has_value(); }
std::optional<std::string> log_level() { return get("PUNA_LOG"); }
std::optional<std::string> demo_model() { return get("PUNA_DEMO_MODEL"); }
std::optional<std::string> isa() { return get("PUNA_ISA"); }
std::optional<std::string> home() { return get("HOME"); }

std::optional<std::string> state_home() {
  if (auto xdg = get("XDG_STATE_HOME"); xdg && xdg->starts_with("/")) return xdg;
  if (auto dir = home()) return *dir + "/.local/state";
  return std::nullopt;
}

void limit_compiled_products() {
  for (const char* cache : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"})
    setenv(cache, "32", /*replace=*/0);
}

}  // namespace puna::env
