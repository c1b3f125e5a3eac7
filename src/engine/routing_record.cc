#include "engine/routing_record.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace puna::engine {

RoutingRecord::RoutingRecord(int64_t layers, int64_t experts_per_token, int64_t most_positions)
    : layers_(layers), chosen_(experts_per_token), most_positions_(most_positions) {}

void RoutingRecord::take(std::span<const ops::Routing> step, int64_t row, int64_t position, int64_t count) {
  PUNA_CHECK(std::ssize(step) == layers_, "{} layers of experts, {} expected", step.size(), layers_);
  count = std::min(count, most_positions_ - position);
  if (count <= 0 || width() == 0) return;
  const auto end = static_cast<size_t>((position + count) * width());
  if (experts_.size() < end) {
    experts_.resize(end, kUnknown);
    scores_.resize(end);
  }
  for (int64_t layer = 0; layer < layers_; ++layer) {
    const ops::Routing& routing = step[static_cast<size_t>(layer)];
    const auto part = [&](const at::Tensor& all, at::ScalarType type) {
      return all.narrow(0, row, count).to(at::kCPU, type).contiguous();
    };
    const at::Tensor selected_TA = part(routing.selected, at::kLong), scores_TA = part(routing.scores, at::kFloat);
    const int64_t* selected = selected_TA.const_data_ptr<int64_t>();
    const float* scores = scores_TA.const_data_ptr<float>();
    for (int64_t i = 0; i < count * chosen_; ++i) {
      const auto at = static_cast<size_t>((position + i / chosen_) * width() + layer * chosen_ + i % chosen_);
      experts_[at] = static_cast<uint16_t>(selected[i]);
      scores_[at] = static_cast<uint8_t>(std::lround(std::clamp(scores[i], 0.0f, 1.0f) * 255));
    }
  }
}

int64_t RoutingRecord::positions() const { return width() == 0 ? 0 : std::ssize(experts_) / width(); }

std::span<const uint16_t> RoutingRecord::experts(int64_t position) const {
  if (position < 0 || position >= positions()) return {};
  const std::span all = std::span(experts_).subspan(static_cast<size_t>(position * width()), width());
  return all.front() == kUnknown ? std::span<const uint16_t>() : all;
}

std::span<const uint8_t> RoutingRecord::scores(int64_t position) const {
  if (experts(position).empty()) return {};
  return std::span(scores_).subspan(static_cast<size_t>(position * width()), width());
}

}  // namespace puna::engine
