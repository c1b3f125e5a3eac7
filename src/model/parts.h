// What the text and the vision model share: finding weights, recording traces, adding to the residual stream.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>
#include <string>

#include "base/error.h"
#include "model/model.h"
#include "ops/grad.h"

namespace puna::model {

using Weights = std::map<std::string, ops::Weight>;

inline const ops::Weight& find_weight(const Weights& weights, const std::string& name) {
  const auto found = weights.find(name);
  PUNA_CHECK(found != weights.end(), "the parameter table has no '{}'", name);
  return found->second;
}

inline void record(Trace* trace, const char* name, const at::Tensor& value) {
  if (trace) (*trace)[name] = value;
}

inline void record(Trace* trace, int layer, const char* name, const at::Tensor& value) {
  if (trace) (*trace)[fmt::format("layers.{}.{}", layer, name)] = value;
}

/// x + term; overwrites x unless a gradient is recorded or a trace may hold it.
inline at::Tensor add_residual(at::Tensor x, const at::Tensor& term, const Trace* trace) {
  return ops::recording() || trace ? x + term : x.add_(term);
}

}  // namespace puna::model
