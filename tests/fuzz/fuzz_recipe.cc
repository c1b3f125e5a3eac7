// Any bytes as a recipe, and after a zero byte as changes of its keys: a recipe that is checked, or an Error.
#include <string_view>
#include <vector>

#include "base/error.h"
#include "train/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const std::string_view toml = rest.substr(0, rest.find('\0'));
  rest.remove_prefix(toml.size());
  std::vector<std::string> overrides;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    overrides.emplace_back(rest.substr(0, rest.find('\0')));
    rest.remove_prefix(overrides.back().size());
  }
  try {
    const puna::train::Recipe recipe = puna::train::parse_recipe(toml, "fuzz", "/recipes", overrides);
    if (recipe.total_steps() < 1 || puna::train::recipe_to_json(recipe).dump().empty()) __builtin_trap();
  } catch (const puna::Error&) {
  }
  return 0;
}
