// Sums, differences and comparisons of numbers of up to three digits, worked column by column in one regular form.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "synth/maker.h"

namespace puna::synth {
namespace {

constexpr std::array<std::string_view, 3> kColumns = {"ones", "tens", "hundreds"};

constexpr std::array<std::string_view, 30> kAdd = {
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "Add {b} to {a}.",
    "{a} + {b}",
    "{a} + {b} =",
    "{a}+{b}",
    "{a}+{b}=",
    "{a} plus {b}",
    "{a} + {b}?",
    "Compute {a} + {b}.",
    "Calculate {a} + {b}.",
    "How much is {a} + {b}?",
    "How much is {a} plus {b}?",
    "What is the sum of {a} and {b}?",
    "Find the sum of {a} and {b}.",
    "What do {a} and {b} add up to?",
    "What's {a} plus {b}?",
    "What's {a}+{b}?",
    "Sum {a} and {b}.",
    "Can you add {a} and {b}?",
    "What do I get if I add {a} and {b}?",
    "I have {a} coins and get {b} more. How many do I have?",
    "There are {a} apples and {b} pears. How many are there together?",
    "Give me the total of {a} and {b}.",
    "What is {a} and {b} together?",
    "What does {a} + {b} make?",
    "Work out {a} + {b}.",
    "What is {b} more than {a}?",
    "{a} and {b} make how much?",
};
constexpr std::array<std::string_view, 28> kSubtract = {
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "Take {b} from {a}.",
    "{a} - {b}",
    "{a} - {b} =",
    "{a}-{b}",
    "{a}-{b}=",
    "{a} minus {b}",
    "{a} - {b}?",
    "Compute {a} - {b}.",
    "Calculate {a} - {b}.",
    "Calculate {a} minus {b}.",
    "How much is {a} - {b}?",
    "How much is {a} minus {b}?",
    "What is {a} less {b}?",
    "What is {a} take away {b}?",
    "What's {a} minus {b}?",
    "What's {a}-{b}?",
    "Can you subtract {b} from {a}?",
    "What do I get if I take {b} from {a}?",
    "I have {a} coins and pay {b}. How many are left?",
    "What is left of {a} when {b} is taken away?",
    "Work out {a} - {b}.",
    "What does {a} - {b} make?",
    "Find {a} minus {b}.",
    "What is {b} less than {a}?",
};
constexpr std::array<std::string_view, 10> kLarger = {
    "Which is larger, {a} or {b}?",
    "Which is bigger, {a} or {b}?",
    "Which number is larger: {a} or {b}?",
    "Which is greater, {a} or {b}?",
    "What is larger, {a} or {b}?",
    "Which is more, {a} or {b}?",
    "Tell me the larger of {a} and {b}.",
    "{a} or {b}, which is bigger?",
    "Which of {a} and {b} is the larger one?",
    "Compare {a} and {b}.",
};
constexpr std::array<std::string_view, 8> kSmaller = {
    "Which is smaller, {a} or {b}?",        "Which is less, {a} or {b}?",
    "Which number is smaller: {a} or {b}?", "What is smaller, {a} or {b}?",
    "Tell me the smaller of {a} and {b}.",  "{a} or {b}, which is smaller?",
    "Which is lower, {a} or {b}?",          "Which of {a} and {b} is the smaller one?",
};
constexpr std::array<std::string_view, 8> kIsGreater = {
    "Is {a} greater than {b}?",
    "Is {a} larger than {b}?",
    "Is {a} bigger than {b}?",
    "Is {a} more than {b}?",
    "Is {a} > {b}?",
    "Is {a} above {b}?",
    "Is {a} higher than {b}?",
    "{a} > {b}?",
};
constexpr std::array<std::string_view, 7> kIsLess = {
    "Is {a} less than {b}?", "Is {a} smaller than {b}?", "Is {a} below {b}?", "Is {a} lower than {b}?",
    "Is {a} < {b}?",         "Is {a} fewer than {b}?",   "{a} < {b}?",
};
constexpr std::array<std::string_view, 6> kIsEqual = {
    "Is {a} equal to {b}?",    "Are {a} and {b} equal?", "Are {a} and {b} the same?",
    "Is {a} the same as {b}?", "Does {a} equal {b}?",    "Is {a} = {b}?",
};

int digits_of(int64_t number) { return number < 10 ? 1 : number < 100 ? 2 : 3; }

int digit(int64_t number, int column) {
  for (int i = 0; i < column; ++i) number /= 10;
  return static_cast<int>(number % 10);
}

struct Pair {
  int64_t a, b;
  int width() const { return digits_of(std::max(a, b)); }
  /// Both with as many digits as the longer one.
  std::string with(std::string_view between) const {
    return fmt::format("{:0{}}{}{:0{}}", a, width(), between, b, width());
  }
};

int carries(Pair p) {
  int count = 0, carry = 0;
  for (int i = 0; i < p.width(); ++i) {
    carry = digit(p.a, i) + digit(p.b, i) + carry > 9 ? 1 : 0;
    count += carry;
  }
  return count;
}

int64_t number_of(Random& random, int digits) {
  constexpr std::array<int64_t, 4> kLimits = {0, 10, 100, 1000};
  return random.between(digits == 1 ? 0 : kLimits[static_cast<size_t>(digits) - 1],
                        kLimits[static_cast<size_t>(digits)] - 1);
}

/// Each pair of lengths is as frequent as any other, and so is each number of carries that the lengths allow often.
Pair pair_to_add(Random& random) {
  const int a_digits = static_cast<int>(random.between(1, 3)), b_digits = static_cast<int>(random.between(1, 3));
  const auto wanted = static_cast<int>(random.between(0, std::max(a_digits, b_digits)));
  Pair pair{};
  for (int attempt = 0; attempt < 60; ++attempt) {
    pair = {number_of(random, a_digits), number_of(random, b_digits)};
    if (carries(pair) == wanted) break;
  }
  return pair;
}

/// A third of the pairs begins with the same digits.
Pair pair_to_compare(Random& random) {
  Pair pair{number_of(random, static_cast<int>(random.between(1, 3))),
            number_of(random, static_cast<int>(random.between(1, 3)))};
  if (!random.chance(0.35)) return pair;
  const int64_t unit = random.chance(0.5) ? 10 : 100;
  pair.a = number_of(random, unit == 100 ? 3 : static_cast<int>(random.between(2, 3)));
  pair.b = pair.a / unit * unit + random.below(unit);
  return pair;
}

std::string worked_sum(Pair p) {
  std::string steps;
  int carry = 0;
  for (int i = 0; i < p.width(); ++i) {
    const int x = digit(p.a, i), y = digit(p.b, i), total = x + y + carry;
    steps += fmt::format("{}{} {}+{}{}={}", i == 0 ? "" : ", ", kColumns[static_cast<size_t>(i)], x, y,
                         i == 0 ? "" : fmt::format("+{}", carry), total);
    carry = total / 10;
  }
  return fmt::format("{}: {}. The answer is {}.", p.with(" + "), steps, p.a + p.b);
}

/// Columns from the left until one decides.
std::string worked_order(Pair p) {
  std::string steps;
  for (int i = p.width() - 1; i >= 0; --i) {
    const int x = digit(p.a, i), y = digit(p.b, i);
    steps += fmt::format("{}{} {}{}{}", steps.empty() ? "" : ", ", kColumns[static_cast<size_t>(i)], x,
                         x < y   ? '<'
                         : x > y ? '>'
                                 : '=',
                         y);
    if (x != y) break;
  }
  return steps;
}

std::string worked_difference(Pair p) {
  const bool negative = p.a < p.b;
  const Pair larger_first = negative ? Pair{p.b, p.a} : p;
  std::string steps;
  int borrow = 0;
  for (int i = 0; i < p.width(); ++i) {
    const int x = digit(larger_first.a, i), y = digit(larger_first.b, i);
    const int top = x - y - borrow < 0 ? x + 10 : x;
    steps += fmt::format("{}{} {}-{}{}={}", i == 0 ? "" : ", ", kColumns[static_cast<size_t>(i)], top, y,
                         i == 0 ? "" : fmt::format("-{}", borrow), top - y - borrow);
    borrow = top > 9 ? 1 : 0;
  }
  const std::string turned = negative ? fmt::format(", so -({})", larger_first.with(" - ")) : "";
  return fmt::format("{}: {}{}: {}. The answer is {}.", p.with(" - "), worked_order(p), turned, steps, p.a - p.b);
}

struct Question {
  std::string_view what, form;
  Pair pair;
  std::string answer;
};

Question comparison(Random& random) {
  Pair p = pair_to_compare(random);
  const int64_t sort = random.below(5);
  if (random.chance(sort == 4 ? 0.5 : 0.08)) p.b = p.a;
  const std::string worked = fmt::format("{}: {}. ", p.with(" and "), worked_order(p));
  const auto yes = [&](bool is) { return worked + (is ? "Yes." : "No."); };
  const auto one = [&](std::string_view word, int64_t number) {
    return worked + (p.a == p.b ? "They are equal." : fmt::format("The {} is {}.", word, number));
  };
  switch (sort) {
    case 0:
      return {"larger", random.pick(kLarger), p, one("larger", std::max(p.a, p.b))};
    case 1:
      return {"smaller", random.pick(kSmaller), p, one("smaller", std::min(p.a, p.b))};
    case 2:
      return {"greater", random.pick(kIsGreater), p, yes(p.a > p.b)};
    case 3:
      return {"less", random.pick(kIsLess), p, yes(p.a < p.b)};
    default:
      return {"equal", random.pick(kIsEqual), p, yes(p.a == p.b)};
  }
}

Question question(Random& random) {
  const int64_t sort = random.below(3);
  if (sort == 0) {
    const Pair p = pair_to_add(random);
    return {"add", random.pick(kAdd), p, worked_sum(p)};
  }
  if (sort == 1) {
    const Pair p = pair_to_compare(random);
    return {"subtract", random.pick(kSubtract), p, worked_difference(p)};
  }
  return comparison(random);
}

class Arithmetic : public Maker {
 public:
  Draft make(Random& random, Split, int64_t) const override {
    const Question q = question(random);
    const std::string asked =
        casual(random, fill(q.form, {{"a", std::to_string(q.pair.a)}, {"b", std::to_string(q.pair.b)}}));
    Draft draft;
    draft.record = chat({asked, q.answer});
    draft.what = q.what;
    draft.content = fmt::format("numbers {} {}", std::min(q.pair.a, q.pair.b), std::max(q.pair.a, q.pair.b));
    return draft;
  }
};

}  // namespace

std::unique_ptr<Maker> make_arithmetic() { return std::make_unique<Arithmetic>(); }

}  // namespace puna::synth
