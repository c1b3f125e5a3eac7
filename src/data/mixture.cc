#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/error.h"
#include "data/permutation.h"

namespace puna::data {
namespace {

using Wide = unsigned __int128;

constexpr uint64_t kBlock = 1024;  // samples, about: a source's share of each block is exact but for one
constexpr int kShareBits = 48;
constexpr uint64_t kMaxSample = uint64_t{1} << 62;

/// Where the piece that begins at `begin` ends: after `length` tokens, or before an image that would be cut.
int64_t piece_end(const DocumentView& document, int64_t begin, int64_t length) {
  const auto tokens = static_cast<int64_t>(document.tokens.size());
  if (tokens - begin <= length) return tokens;
  int64_t end = begin + length;
  for (const ImageView& image : document.images)
    if (image.first_token < end && end < image.first_token + num_image_tokens(image.tiles)) end = image.first_token;
  return end;
}

}  // namespace

/// The pieces lie end to end over all tokens of the dataset.
struct Mixture::Pieces {
  std::vector<int64_t> begin;              // [pieces] in the piece's document
  std::vector<int64_t> first_piece = {0};  // [documents + 1]
  uint64_t name_key = 0;
  uint64_t limit = UINT64_MAX;  // samples that may be taken

  uint64_t count() const { return begin.size(); }
  Pieces(const MixtureSource& source, int64_t sequence_length);
};

struct Mixture::Block {
  struct Choice {
    uint32_t source;
    uint32_t rank;  // among the block's samples of that source
  };
  uint64_t number = 0, begin = 0;
  std::vector<Choice> samples;
};

struct Mixture::Cache {
  std::mutex mutex;
  std::shared_ptr<const Block> block;
};

Mixture::Pieces::Pieces(const MixtureSource& source, int64_t sequence_length) : name_key(mix(source.name)) {
  const std::string where = fmt::format("data '{}'", source.name);
  const Dataset& dataset = *source.dataset;
  if (!(source.weight > 0) || !std::isfinite(source.weight))
    fail(where, "its weight is {}; expected a positive number", source.weight);
  if (!(source.max_epochs >= 0) || !std::isfinite(source.max_epochs))
    fail(where, "max_epochs is {}; expected 0 (no limit) or more", source.max_epochs);
  for (int64_t d = 0; d < dataset.num_documents(); ++d) {
    const int64_t tokens = dataset.document_tokens(d);
    begin.push_back(0);
    if (tokens > sequence_length) {
      const DocumentView document = dataset.document(d);
      for (int64_t at = 0; (at = piece_end(document, at, sequence_length)) < tokens;) {
        if (at == begin.back())
          fail(where,
               "document {} has an image of more than the {} tokens of a sequence at token {}; use longer "
               "sequences or fewer tiles",
               d, sequence_length, at);
        begin.push_back(at);
      }
    }
    first_piece.push_back(static_cast<int64_t>(begin.size()));
  }
  if (begin.empty()) fail(where, "the dataset has no documents");
  if (source.max_epochs > 0) {
    const double samples = source.max_epochs * static_cast<double>(count());
    limit = samples < 0x1p62 ? static_cast<uint64_t>(std::ceil(samples)) : UINT64_MAX;
  }
}

Mixture::Mixture(std::vector<MixtureSource> sources, uint64_t seed, int64_t sequence_length)
    : sources_(std::move(sources)), seed_(seed), cache_(std::make_shared<Cache>()) {
  if (sources_.empty()) fail("data", "the mixture has no sources; name at least one");
  if (sequence_length < 1) fail("data", "the sequence length is {}; expected 1 or more", sequence_length);
  std::vector<double> rates;
  double sum = 0;
  for (size_t i = 0; i < sources_.size(); ++i) {
    for (size_t j = 0; j < i; ++j)
      if (sources_[i].name == sources_[j].name) fail("data", "two sources are called '{}'", sources_[i].name);
    pieces_.push_back(std::make_shared<const Pieces>(sources_[i], sequence_length));
    const double mean_tokens =
        static_cast<double>(sources_[i].dataset->num_tokens()) / static_cast<double>(pieces_.back()->count());
    sum += rates.emplace_back(sources_[i].weight / mean_tokens);
  }
  for (size_t i = 0; i < sources_.size(); ++i) {
    share_.push_back(static_cast<uint64_t>(std::llround(std::ldexp(rates[i] / sum, kShareBits))));
    if (share_.back() == 0)
      fail(fmt::format("data '{}'", sources_[i].name), "its weight {} is too small beside the others to be met",
           sources_[i].weight);
  }
}

uint64_t Mixture::samples_before_block(uint64_t block, size_t source) const {
  return static_cast<uint64_t>(Wide{block} * kBlock * share_[source] >> kShareBits);
}

uint64_t Mixture::samples_before_block(uint64_t block) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < sources_.size(); ++i) sum += samples_before_block(block, i);
  return sum;
}

std::shared_ptr<const Mixture::Block> Mixture::block_of(uint64_t n) const {
  {
    const std::lock_guard lock(cache_->mutex);
    const auto& last = cache_->block;
    if (last && n >= last->begin && n - last->begin < last->samples.size()) return last;
  }
  // Each source's share is rounded down by itself, so that a block has up to one sample per source more or fewer.
  auto block = std::make_shared<Block>();
  uint64_t& number = block->number;
  number = n / kBlock;
  while (samples_before_block(number + 1) <= n) ++number;
  while (samples_before_block(number) > n) --number;
  block->begin = samples_before_block(number);
  std::vector<uint32_t> by_source;
  for (size_t i = 0; i < sources_.size(); ++i)
    by_source.resize(by_source.size() + samples_before_block(number + 1, i) - samples_before_block(number, i),
                     static_cast<uint32_t>(i));
  const Permutation permutation(by_source.size(), mix({seed_, number}));
  std::vector<uint32_t> taken(sources_.size(), 0);
  for (size_t at = 0; at < by_source.size(); ++at) {
    const uint32_t source = by_source[permutation(at)];
    block->samples.push_back({source, taken[source]++});
  }
  const std::lock_guard lock(cache_->mutex);
  cache_->block = block;
  return block;
}

Sample Mixture::at(uint64_t n) const {
  if (n >= kMaxSample) fail("data", "sample {} is beyond 2^62", n);
  const auto block = block_of(n);
  const auto [i, rank] = block->samples[n - block->begin];
  const uint64_t k = samples_before_block(block->number, i) + rank;
  const Pieces& pieces = *pieces_[i];
  if (k >= pieces.limit)
    throw OutOfData(fmt::format("data '{}'", sources_[i].name),
                    fmt::format("data runs out: {} epochs ({} samples) were asked of it at most; raise max_epochs, "
                                "lower its weight, train for fewer steps, or add data",
                                sources_[i].max_epochs, pieces.limit));
  const uint64_t epoch = k / pieces.count();
  const auto piece =
      static_cast<int64_t>(Permutation(pieces.count(), mix({seed_, pieces.name_key, epoch}))(k % pieces.count()));
  const auto next = std::upper_bound(pieces.first_piece.begin(), pieces.first_piece.end(), piece);
  const int64_t d = next - pieces.first_piece.begin() - 1;

  const DocumentView document = sources_[i].dataset->document(d);
  const int64_t first = pieces.begin[static_cast<size_t>(piece)];
  const int64_t end =
      piece + 1 < *next ? pieces.begin[static_cast<size_t>(piece) + 1] : static_cast<int64_t>(document.tokens.size());
  const auto from = static_cast<size_t>(first), count = static_cast<size_t>(end - first);
  Sample sample{document.tokens.subspan(from, count), document.loss.subspan(from, count), {}, i, d};
  for (ImageView image : document.images) {
    if (image.first_token < first || image.first_token >= end) continue;
    image.first_token -= first;
    sample.images.push_back(image);
  }
  return sample;
}

}  // namespace puna::data
