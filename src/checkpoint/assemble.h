// Putting a row of the parameter table together from the parts that arch's names describe, over one or several files.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "arch/names.h"
#include "checkpoint/binder.h"
#include "checkpoint/stored_row.h"

namespace puna::checkpoint {

/// A linear's or another part's matrix [rows, cols] by name; nullptr when it is not as expected (noted by the callee).
using MatrixOf = std::function<std::shared_ptr<const StoredMatrix>(const arch::StoredPart& part)>;

/// The row from one file in which each part is one matrix of shape [.., rows, cols] (2-D, or 1-D as one row).
StoredRow assemble(const arch::ParamRow& row, const arch::StoredForm& form, const MatrixOf& matrix_of_part);

/// The row from the files of one checkpoint (Meta's shards; one file for GGUF), with tensors of these types. Takes the
/// first form whose names all exist.
StoredRow assemble(const arch::ParamRow& row, const std::vector<arch::StoredForm>& forms, std::vector<Binder>& files,
                   std::span<const DType> dtypes);

}  // namespace puna::checkpoint
