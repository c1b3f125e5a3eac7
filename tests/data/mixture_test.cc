// Mixtures: shares by tokens, every piece once per epoch, and samples that depend on their number alone.
#include "data/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include "base/error.h"
#include "data/permutation.h"
#include "tests/data/support.h"
#include "tests/support/golden.h"

namespace puna::data {
namespace {

using test::build_dataset;
using testing::HasSubstr;

/// Datasets of documents of about 20, 120 and 60 tokens.
class MixtureTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<test::TemporaryDirectory>();
    const auto make = [](const char* name, int count, int length) {
      std::vector<Record> records;
      for (int i = 0; i < count; ++i)
        records.push_back(
            test::document(std::string(static_cast<size_t>(length + i % 7), static_cast<char>('a' + i % 26))));
      return build_dataset(dir_->path() / name, std::move(records), 3000);
    };
    short_ = make("short", 50, 15), long_ = make("long", 31, 115), middle_ = make("middle", 7, 55);
  }
  static void TearDownTestSuite() { short_ = long_ = middle_ = nullptr, dir_ = nullptr; }

  static Mixture three(uint64_t seed = 1, int64_t length = 48) {
    return Mixture({{"short", short_, 0.6, 0}, {"long", long_, 0.3, 0}, {"middle", middle_, 0.1, 0}}, seed, length);
  }

  static inline std::unique_ptr<test::TemporaryDirectory> dir_;
  static inline std::shared_ptr<const Dataset> short_, long_, middle_;
};

using Key = std::tuple<size_t, int64_t, const TokenId*, size_t>;
Key key_of(const Sample& sample) {
  return {sample.source, sample.document, sample.tokens.data(), sample.tokens.size()};
}

/// All samples until the data run out.
std::vector<Sample> all_of(const Mixture& mixture) {
  std::vector<Sample> samples;
  try {
    for (uint64_t n = 0;; ++n) samples.push_back(mixture.at(n));
  } catch (const OutOfData&) {
  }
  return samples;
}

TEST_F(MixtureTest, SharesOfTheTokensAreTheWeights) {
  const Mixture mixture = three();
  std::map<size_t, double> tokens;
  double all = 0;
  for (uint64_t n = 0; n < 50'000; ++n) {
    const Sample sample = mixture.at(n);
    tokens[sample.source] += static_cast<double>(sample.tokens.size());
    all += static_cast<double>(sample.tokens.size());
  }
  EXPECT_NEAR(tokens[0] / all, 0.6, 0.006);
  EXPECT_NEAR(tokens[1] / all, 0.3, 0.003);
  EXPECT_NEAR(tokens[2] / all, 0.1, 0.001);
}

TEST_F(MixtureTest, EveryPieceComesOncePerEpochInAnotherOrder) {
  const Mixture mixture = three();
  std::vector<std::vector<const TokenId*>> pieces(3);
  for (uint64_t n = 0; n < 20'000; ++n) {
    const Sample sample = mixture.at(n);
    pieces[sample.source].push_back(sample.tokens.data());
  }
  for (size_t source = 0; source < 3; ++source) {
    const MixtureSource& from = mixture.sources()[source];
    const auto size = std::ssize(all_of(Mixture({{from.name, from.dataset, 1, /*max_epochs=*/1}}, 1, 48)));
    ASSERT_GT(std::ssize(pieces[source]), 3 * size);
    std::set<std::vector<const TokenId*>> orders;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      const auto begin = pieces[source].begin() + epoch * size;
      const std::vector<const TokenId*> order(begin, begin + size);
      const std::set<const TokenId*> distinct(order.begin(), order.end());
      EXPECT_EQ(order.size(), distinct.size()) << "a piece came twice";
      orders.insert(order);
    }
    EXPECT_EQ(orders.size(), 3u) << "epochs differ in their order";
  }
}

TEST_F(MixtureTest, ASampleDependsOnItsNumberAlone) {
  const Mixture mixture = three(), same = three(), other = three(2);
  std::vector<Key> in_order;
  for (uint64_t n = 0; n < 5000; ++n) in_order.push_back(key_of(mixture.at(n)));
  for (uint64_t i = 0; i < 5000; ++i) {
    const uint64_t n = i * 2657 % 5000;
    ASSERT_EQ(key_of(same.at(n)), in_order[n]);
  }
  size_t equal = 0;
  for (uint64_t n = 0; n < 5000; ++n) equal += key_of(other.at(n)) == in_order[n] ? 1 : 0;
  EXPECT_LT(equal, 500u) << "the seed matters";
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t n = t; n < 5000; n += 4) wrong[t] += key_of(mixture.at(n)) != in_order[n];
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST_F(MixtureTest, OtherSourcesDoNotChangeTheOrderOfOne) {
  const auto order_of = [](const Mixture& mixture, const std::string& name) {
    std::vector<const TokenId*> order;
    for (uint64_t n = 0; order.size() < 300; ++n)
      if (const Sample sample = mixture.at(n); mixture.sources()[sample.source].name == name)
        order.push_back(sample.tokens.data());
    return order;
  };
  const auto alone = order_of(Mixture({{"long", long_, 1, 0}}, 1, 48), "long");
  EXPECT_EQ(order_of(three(), "long"), alone);
  EXPECT_NE(order_of(Mixture({{"renamed", long_, 1, 0}}, 1, 48), "renamed"), alone);
  EXPECT_NE(order_of(three(2), "long"), alone);
}

TEST_F(MixtureTest, PiecesOfADocumentLieEndToEnd) {
  const Mixture mixture({{"long", long_, 1, 1}}, 5, 48);
  std::map<int64_t, std::map<const TokenId*, size_t>> documents;
  for (const Sample& sample : all_of(mixture)) {
    EXPECT_LE(sample.tokens.size(), 48u);
    EXPECT_EQ(sample.tokens.size(), sample.loss.size());
    documents[sample.document][sample.tokens.data()] = sample.tokens.size();
  }
  ASSERT_EQ(documents.size(), 31u);
  for (const auto& [document, pieces] : documents) {
    const TokenId* at = long_->document(document).tokens.data();
    for (const auto& [begin, size] : pieces) {
      EXPECT_EQ(begin, at);
      at = begin + size;
    }
    EXPECT_EQ(at, long_->document(document).tokens.data() + long_->document_tokens(document));
  }
}

TEST_F(MixtureTest, RunsOutAfterMaxEpochs) {
  const Mixture mixture({{"short", short_, 1, 1.5}}, 1, 48);
  for (uint64_t n = 0; n < 75; ++n) EXPECT_NO_THROW(mixture.at(n));
  for (uint64_t n : {75, 76, 1000, 5000}) {
    try {
      mixture.at(n);
      FAIL() << n;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("[data 'short'] data runs out"));
    }
  }
}

TEST_F(MixtureTest, FarSamplesAndManySources) {
  const Mixture mixture = three();
  EXPECT_NO_THROW(mixture.at((uint64_t{1} << 62) - 1));
  EXPECT_THROW(mixture.at(uint64_t{1} << 62), Error);
  std::vector<MixtureSource> many;
  for (int i = 0; i < 2000; ++i) many.push_back({fmt::format("s{}", i), middle_, 1, 0});
  const Mixture wide(many, 3, 100);
  std::map<size_t, int> seen;
  for (uint64_t n = 0; n < 20'000; ++n) ++seen[wide.at(n).source];
  EXPECT_EQ(seen.size(), 2000u);
  for (const auto& [source, count] : seen) EXPECT_NEAR(count, 10, 1) << source;
}

TEST_F(MixtureTest, BadSourcesAreRefused) {
  const auto error = [](std::vector<MixtureSource> sources, int64_t length = 10) {
    try {
      Mixture(std::move(sources), 0, length);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error({}), HasSubstr("no sources"));
  EXPECT_THAT(error({{"a", short_, 1, 0}, {"a", long_, 1, 0}}), HasSubstr("two sources are called 'a'"));
  EXPECT_THAT(error({{"a", short_, 0, 0}}), HasSubstr("weight is 0"));
  EXPECT_THAT(error({{"a", short_, NAN, 0}}), HasSubstr("weight is nan"));
  EXPECT_THAT(error({{"a", short_, 1, -1}}), HasSubstr("max_epochs is -1"));
  EXPECT_THAT(error({{"a", short_, 1, 0}, {"b", long_, 1e-30, 0}}), HasSubstr("'b'] its weight 1e-30 is too small"));
  EXPECT_THAT(error({{"a", short_, 1, 0}}, 0), HasSubstr("sequence length is 0"));
}

// An image of 4 tokens a tile and 1 tile takes 7 tokens.
TEST(MixtureImages, ADocumentIsNeverCutInsideAnImage) {
  const test::TemporaryDirectory dir;
  std::vector<std::string> texts, images;
  for (int i = 0; i < 40; ++i) texts.push_back(std::string(static_cast<size_t>(i % 11), 'x'));
  for (int i = 0; i < 39; ++i) images.push_back(test::png(i % 3 == 0 ? 30 : 16, 16, static_cast<uint8_t>(i)));
  const auto dataset = build_dataset(dir.path(), {test::document_with_images(texts, images)});
  for (int64_t length : {17, 18, 20, 33, 100}) {
    const Mixture mixture({{"a", dataset, 1, 1}}, 1, length);
    size_t num_images = 0, num_tokens = 0;
    for (const Sample& sample : all_of(mixture)) {
      num_tokens += sample.tokens.size();
      num_images += sample.images.size();
      EXPECT_LE(static_cast<int64_t>(sample.tokens.size()), length);
      for (const ImageView& image : sample.images) {
        const auto ids = text::image_tokens(*test::data_tokenizer(), image.tiles);
        ASSERT_LE(static_cast<size_t>(image.first_token) + ids.size(), sample.tokens.size());
        EXPECT_TRUE(std::equal(ids.begin(), ids.end(), sample.tokens.begin() + image.first_token));
      }
    }
    EXPECT_EQ(num_images, 39u);
    EXPECT_EQ(static_cast<int64_t>(num_tokens), dataset->num_tokens());
  }
  try {
    Mixture({{"a", dataset, 1, 0}}, 1, 16);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("an image of more than the 16 tokens"));
  }
}

TEST(Permutation, IsOneForEverySizeAndKey) {
  for (uint64_t size : {1, 2, 3, 4, 5, 16, 17, 1000, 1024, 1025}) {
    std::set<std::vector<uint64_t>> orders;
    for (uint64_t key = 0; key < 8; ++key) {
      const Permutation permutation(size, mix({key}));
      std::vector<uint64_t> order;
      for (uint64_t i = 0; i < size; ++i) order.push_back(permutation(i));
      const std::set<uint64_t> distinct(order.begin(), order.end());
      EXPECT_EQ(distinct.size(), size);
      EXPECT_LT(*distinct.rbegin(), size);
      orders.insert(order);
    }
    if (size >= 16) {
      EXPECT_EQ(orders.size(), 8u);
    }
  }
}

// Neighbours are not kept together, and each element goes everywhere.
TEST(Permutation, Shuffles) {
  constexpr uint64_t kSize = 100;
  std::vector<int> first_goes_to(kSize, 0);
  int neighbours = 0;
  for (uint64_t key = 0; key < 10'000; ++key) {
    const Permutation permutation(kSize, mix({key}));
    ++first_goes_to[permutation(0)];
    const int64_t step = static_cast<int64_t>(permutation(51)) - static_cast<int64_t>(permutation(50));
    neighbours += step == 1 || step == -1;
  }
  EXPECT_NEAR(neighbours, 200, 60);
  for (int count : first_goes_to) EXPECT_NEAR(count, 100, 50);
}

}  // namespace
}  // namespace puna::data
