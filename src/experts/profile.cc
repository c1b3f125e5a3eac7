#include "experts/profile.h"

#include "base/error.h"

namespace puna::experts {

std::vector<std::vector<int64_t>> profile_rows(const Json& profile, std::span<const size_t> experts,
                                               std::string_view where) {
  constexpr int64_t kMost = int64_t{1} << 53;
  const auto count = [&](const Json& json) {
    if (!json.is_number_integer() || json.get<int64_t>() < 0 || json.get<int64_t>() > kMost)
      fail(where, "has {} where a count should be", json.dump());
    return json.get<int64_t>();
  };
  const auto list = [&](const Json& json, size_t size) -> const Json& {
    if (!json.is_array() || json.size() != size) fail(where, "has no list of {}; is it a profile of this model?", size);
    return json;
  };
  if (!profile.is_object() || !profile.contains("rows"))
    fail(where, "is no profile of experts; puna experts profile writes one");
  const Json& layers = list(profile["rows"], experts.size());
  std::vector<std::vector<int64_t>> rows(experts.size());
  for (size_t l = 0; l < experts.size(); ++l)
    for (const Json& each : list(layers[l], experts[l])) rows[l].push_back(count(each));
  return rows;
}

}  // namespace puna::experts
