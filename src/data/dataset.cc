#include "data/dataset.h"

#include <algorithm>

#include "base/error.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "io/file.h"

namespace puna::data {

struct Dataset::Impl {
  std::string name, content;
  Manifest manifest;
  std::vector<Shard> shards;
  std::vector<int64_t> first_document = {0};  // of each shard, and the number of all
  int64_t num_tokens = 0, num_images = 0;

  struct Place {
    const Shard& shard;
    int64_t document;
  };
  Place find(int64_t document) const {
    PUNA_CHECK(document >= 0 && document < first_document.back(), "document {} of {}", document, first_document.back());
    const auto next = std::upper_bound(first_document.begin(), first_document.end(), document);
    return {shards[static_cast<size_t>(next - first_document.begin()) - 1], document - next[-1]};
  }
};

Dataset::Dataset(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dataset::~Dataset() = default;

std::shared_ptr<const Dataset> Dataset::open(const std::filesystem::path& dir, bool verify) {
  const auto path = dir / kManifestName;
  if (!io::path_exists(path)) {
    if (io::path_exists(dir / kPartialManifestName))
      fail(dir.string(),
           "holds an unfinished dataset; run the command that built it again, it goes on where it stopped");
    fail(dir.string(), "holds no dataset ({} is missing); see puna data build --help", kManifestName);
  }
  auto impl = std::make_unique<Impl>();
  impl->manifest = read_manifest(path);
  impl->content = impl->manifest.content_hash();
  impl->name = std::filesystem::absolute(dir / "x").lexically_normal().parent_path().filename().string();
  for (const ShardEntry& entry : impl->manifest.shards) {
    impl->shards.push_back(open_shard(dir, entry, impl->manifest.range, verify));
    impl->first_document.push_back(impl->first_document.back() + entry.documents);
    impl->num_tokens += entry.tokens;
    impl->num_images += entry.images;
  }
  return std::shared_ptr<const Dataset>(new Dataset(std::move(impl)));
}

int64_t Dataset::num_documents() const { return impl_->first_document.back(); }
int64_t Dataset::num_tokens() const { return impl_->num_tokens; }
int64_t Dataset::num_images() const { return impl_->num_images; }
int64_t Dataset::document_tokens(int64_t document) const {
  const auto place = impl_->find(document);
  return place.shard.document_tokens(place.document);
}
DocumentView Dataset::document(int64_t document) const {
  const auto place = impl_->find(document);
  return place.shard.document(place.document);
}
const std::string& Dataset::tokenizer_hash() const { return impl_->manifest.tokenizer; }
const std::string& Dataset::encoding_hash() const { return impl_->manifest.encoding; }
const std::string& Dataset::content_hash() const { return impl_->content; }
const std::string& Dataset::name() const { return impl_->name; }

}  // namespace puna::data
