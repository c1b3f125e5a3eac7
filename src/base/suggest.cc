#include "base/suggest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace puna {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

/// "lr" of "learning_rate".
bool abbreviates(std::string_view name, std::string_view words) {
  std::string initials;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i == 0 || words[i - 1] == '_' || words[i - 1] == '-') initials += words[i];
  }
  return initials.size() > 1 && initials == name;
}

}  // namespace

std::string nearest_name(std::string_view name, std::span<const std::string> candidates) {
  std::string best;
  size_t best_distance = (name.size() <= 3 ? 1 : std::max<size_t>(2, name.size() / 3)) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
    if (abbreviates(name, candidate)) return candidate;
  }
  return best;
}

}  // namespace puna
