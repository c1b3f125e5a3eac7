#include "plot/scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace puna::plot {
namespace {

/// The round number nearest to `rough`: 1, 2 or 5 times a power of ten.
double nice_step(double rough) {
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double factor = rough / power;
  return power * (factor < 1.5 ? 1 : factor < 3.5 ? 2 : factor < 7.5 ? 5 : 10);
}

constexpr double kLimit = 1e300;  // beyond it, differences overflow

bool is_drawable(double value, bool positive) {
  return std::abs(value) <= kLimit && (!positive || value >= 1 / kLimit);
}

}  // namespace

void Extent::add(std::span<const double> values, bool positive) {
  for (const double value : values) {
    if (!is_drawable(value, positive)) continue;
    const bool first = empty();
    low_ = first ? value : std::min(low_, value);
    high_ = first ? value : std::max(high_, value);
  }
}

Scale::Scale(double low, double high, bool log, double from, double to)
    : low_(low), high_(high), log_(log), from_(from), to_(to) {
  PUNA_CHECK(low < high && (!log || low > 0), "range {} to {}", low, high);
}

double Scale::pixel(double value) const {
  const double part =
      log_ ? (std::log(value) - std::log(low_)) / (std::log(high_) - std::log(low_)) : (value - low_) / (high_ - low_);
  // Far outside is outside: a vector format cannot hold every double.
  return from_ + std::clamp(part, -100.0, 100.0) * (to_ - from_);
}

bool Scale::can_show(double value) const { return is_drawable(value, log_); }

std::vector<Tick> Scale::ticks(int wanted) const {
  if (log_) return log_ticks(wanted);
  const double step = nice_step((high_ - low_) / std::max(wanted, 1));
  std::vector<Tick> ticks;
  const double first = std::ceil(low_ / step - 1e-9);
  for (int i = 0; i <= 100 && (first + i) * step <= high_ + step * 1e-9; ++i)
    ticks.push_back({(first + i) * step, tick_label((first + i) * step, step)});
  return ticks;
}

std::vector<Tick> Scale::log_ticks(int wanted) const {
  const double decades = std::log10(high_) - std::log10(low_);
  if (decades < 1) {  // too few powers of ten: round numbers as on a linear axis
    Scale linear(low_, high_, false, from_, to_);
    return linear.ticks(wanted);
  }
  const int every = std::max(1, static_cast<int>(std::ceil(decades / std::max(wanted, 1))));
  std::vector<Tick> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(low_))); power <= std::ceil(std::log10(high_)); ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double value = factor * std::pow(10.0, power);
      if (value < low_ * (1 - 1e-9) || value > high_ * (1 + 1e-9)) continue;
      const bool named = (factor == 1 && power % every == 0) || (every == 1 && decades <= wanted / 3.0);
      if (named || every == 1) ticks.push_back({value, named ? tick_label(value, value) : ""});
    }
  }
  return ticks;
}

std::pair<double, double> range_of(const Extent& extent, bool log, std::optional<double> min, std::optional<double> max,
                                   double room) {
  double low = extent.low(), high = extent.high();
  if (log && high / low < 1.5) {
    low /= 1.25;
    high *= 1.25;
  } else if (log) {
    const double factor = std::exp((std::log(high) - std::log(low)) * room);
    low /= factor;
    high *= factor;
  } else if (const double size = std::max(std::abs(low), std::abs(high)); high - low <= 1e-9 * size) {
    const double half = size == 0 ? 1 : size * 0.1;
    low -= half;
    high += half;
  } else {
    const double extra = (high - low) * room;
    const bool from_zero = low >= 0;
    low = from_zero ? std::max(low - extra, 0.0) : low - extra;
    high += extra;
  }
  low = std::max(min.value_or(low), log ? 1e-302 : -2 * kLimit);
  high = std::min(max.value_or(high), 2 * kLimit);
  if (low >= high)
    fail("plot", "an axis from {} to {} shows nothing; the lower end must be below the upper", low, high);
  return {low, high};
}

std::string tick_label(double value, double step) {
  const double size = std::abs(value);
  if (size < step * 1e-6) return "0";
  if (size >= 1e15 || step < 1e-4) return fmt::format("{:.4g}", value);
  constexpr std::array<std::pair<double, const char*>, 4> kUnits = {{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}};
  for (const auto& [unit, suffix] : kUnits) {
    if (size < unit || (unit == 1e3 && size < 1e4 && step < 1e3)) continue;
    return fmt::format("{:g}{}", value / unit, suffix);
  }
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 4);
  return fmt::format("{:.{}f}", value, decimals);
}

Color series_color(size_t index, size_t count) {
  // Okabe and Ito, "Color Universal Design", 2008; yellow is left out, being too light on white.
  constexpr std::array<Color, 7> kColors = {{{0x00, 0x72, 0xB2},
                                             {0xD5, 0x5E, 0x00},
                                             {0x00, 0x9E, 0x73},
                                             {0xCC, 0x79, 0xA7},
                                             {0xE6, 0x9F, 0x00},
                                             {0x56, 0xB4, 0xE9},
                                             {0x33, 0x33, 0x33}}};
  if (count <= kColors.size()) return kColors[index];
  return palette(0.92 * static_cast<double>(index) / static_cast<double>(count - 1));
}

Color palette(double position) {
  constexpr std::array<Color, 9> kStops = {{{0x44, 0x01, 0x54},
                                            {0x47, 0x2D, 0x7B},
                                            {0x3B, 0x52, 0x8B},
                                            {0x2C, 0x72, 0x8E},
                                            {0x21, 0x91, 0x8C},
                                            {0x28, 0xAE, 0x80},
                                            {0x5E, 0xC9, 0x62},
                                            {0xAD, 0xDC, 0x30},
                                            {0xFD, 0xE7, 0x25}}};
  const double at = std::clamp(position, 0.0, 1.0) * (kStops.size() - 1);
  const size_t below = std::min(static_cast<size_t>(at), kStops.size() - 2);
  const double part = at - static_cast<double>(below);
  const auto mix = [part](uint8_t a, uint8_t b) { return static_cast<uint8_t>(std::lround(a + part * (b - a))); };
  const Color a = kStops[below], b = kStops[below + 1];
  return {mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
}

}  // namespace puna::plot
