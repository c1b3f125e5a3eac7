// Which files of a quantised model are finished, kept beside them until all are. Private to src/quant.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/json.h"
#include "quant/plan.h"

namespace puna::quant::internal {

/// What makes two runs the same: the source's files with size and time, the rules, the split into files, the
/// calibration.
std::string identity_of(const std::filesystem::path& source, const Rules& rules, const Plan& plan,
                        const std::string& calibration);

class RunState {
 public:
  /// Reads the state of an earlier run in `dir`, and removes what a killed one left half-written. Throws Error when
  /// `dir` holds a finished model, or files of another run.
  RunState(std::filesystem::path dir, std::string identity);

  /// The report that an earlier run stored for this file; null when the file must be written: there is none, or its
  /// bytes are not those that were written.
  Json finished(const std::string& file) const;
  void add(const std::string& file, Json report);
  /// Errors of rare experts that are measured, by "layer.expert"; what an earlier run stored, first. Throws Error when
  /// that is damaged.
  std::map<std::string, double> errors() const;
  void set_errors(const std::map<std::string, double>& errors);
  /// Removes the state: the model is complete.
  void remove();

 private:
  std::filesystem::path dir_;
  Json json_;  // {"identity", "files": {name: {"hash", "report"}}, "errors"}
};

}  // namespace puna::quant::internal
