// The packed form of a model beside it, made when it is wanted.
#pragma once

#include <string>

namespace puna::cli {

/// `<model>-packed`, a directory: written first where it is missing or older than the model's files. A model that is
/// packed already is returned as it is. Throws Error when the model has nothing to pack or cannot be written there.
std::string packed_beside(const std::string& model);

}  // namespace puna::cli
