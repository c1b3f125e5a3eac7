// What a recipe says that cannot have an effect on its model. Internal to src/train.
#pragma once

#include <string>
#include <vector>

#include "arch/config.h"
#include "train/recipe.h"

namespace puna::train {

/// One line for each setting without an effect, for people. Throws Error for a stage in which nothing learns, whose
/// sequences are longer than the model's context, or whose schedule never decays though it is to.
std::vector<std::string> check_settings(const Recipe& recipe, const arch::Llama4Config& config);

}  // namespace puna::train
