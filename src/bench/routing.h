// Random models whose routing is known: codes that embedding and routers share, and tokens that go where they should.
// Nothing in the model knows of it: what steers the routers is in the weights, so that any program that runs them
// routes alike.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "arch/config.h"
#include "model/model.h"

namespace puna::bench {

/// The digits of a token id to the base of the number of experts are its choices: layers with experts take turns with
/// them, and each sends a digit to an expert by a permutation of its own. An embedding holds the codes of its token's
/// digits, and the router's row of an expert is the code of the digit that goes there.
class RoutingCodes {
 public:
  explicit RoutingCodes(const arch::TextConfig& config);

  /// Digits that are used; 0: the model has no experts to choose from.
  int64_t groups() const { return groups_; }
  int64_t digit(int64_t token, int64_t group) const;
  /// That of these digits, of which some `rest` chooses one.
  int64_t token(std::span<const int64_t> digits, uint64_t rest) const;
  /// Where a layer with experts sends it.
  int64_t expert(int64_t layer, int64_t token) const;
  /// [D], of 1 and -1: what the layer's router looks for.
  std::span<const float> router_row(int64_t layer, int64_t expert) const;
  /// [D], of 1 and -1: what the embedding says of a digit.
  std::span<const float> code(int64_t group, int64_t digit) const;
  /// Distinct experts of a layer that the tokens go to, on average over the digits.
  double experts_hit(std::span<const int64_t> tokens) const;

  int64_t experts() const { return experts_; }
  int64_t vocabulary() const { return vocabulary_; }

 private:
  struct Layer {
    int64_t group = 0;
    std::vector<int64_t> expert_of_digit, digit_of_expert;
  };
  int64_t experts_, width_, vocabulary_, groups_ = 0;
  std::vector<int64_t> powers_;  // [groups + 1] of the number of experts
  std::vector<float> codes_;     // [groups, experts, D]
  std::vector<Layer> layers_;    // [layers]; those without experts are empty
};

/// Whether the model's embedding and routers hold these codes: as in what write_random_model() wrote.
bool has_codes(const model::Model& model, const RoutingCodes& codes);

enum class Routing { kUniform, kZipf };

/// Tokens of one sequence. Uniform: each is any. Zipf: digit d comes with a probability that goes with 1 / (d + 1), and
/// tokens come in runs of 16: three of four take each digit from their run's, the others draw it anew.
class TokenStream {
 public:
  /// `codes` must outlive it.
  TokenStream(const RoutingCodes& codes, Routing routing, uint64_t seed);
  int64_t next();

  static constexpr int64_t kRun = 16;

 private:
  const RoutingCodes& codes_;
  Routing routing_;
  std::mt19937_64 random_;
  std::discrete_distribution<int64_t> zipf_;
  std::vector<int64_t> run_;  // digits
  int64_t left_;              // of the run
};

}  // namespace puna::bench
