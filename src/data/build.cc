#include "data/build.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "data/encode.h"
#include "data/manifest.h"
#include "data/vocabulary.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/hash.h"

namespace puna::data {
namespace {

namespace fs = std::filesystem;

/// Files that a killed build left half written.
void remove_temporary_files(const fs::path& dir) {
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with("shard-") || name.starts_with("dataset.") || name.starts_with("vocabulary.");
    if (ours && name.find(".tmp.") != name.npos) fs::remove(entry.path());
  }
}

void check_same(const fs::path& dir, const Manifest& found, const Manifest& wanted, const char* what) {
  const char* differs = found.encoding != wanted.encoding         ? "for another tokenizer or image layout"
                        : found.fingerprint != wanted.fingerprint ? "of other records"
                                                                  : nullptr;
  if (differs)
    fail(dir.string(), "holds {} {}; name another directory, or remove this one to build it anew", what, differs);
}

class Builder {
 public:
  Builder(RecordSource& records, const Encoding& encoding, const BuildOptions& options, Manifest manifest)
      : records_(records), encoding_(encoding), options_(options), manifest_(std::move(manifest)) {}

  /// Keeps the leading shards of an earlier build that are whole, and reads past their records.
  void go_on(const Manifest& earlier) {
    for (const ShardEntry& entry : earlier.shards) {
      stop_if_interrupted(options_.interrupt);
      try {
        open_shard(options_.out, entry, manifest_.range, true);
      } catch (const Error&) {
        break;  // this shard and those behind it are written again
      }
      manifest_.shards.push_back(entry);
      skipped_ += entry.documents;
    }
    Progress progress(label("skipping in"), 0);
    for (int64_t i = 0; i < skipped_; ++i) {
      stop_if_interrupted(options_.interrupt);
      if (!records_.next())
        fail(options_.out.string(), "an earlier build read {} records, now there are {}; remove it to build it anew",
             skipped_, i);
      progress.set(i + 1, records_.progress());
    }
  }

  void run() {
    {
      Progress progress(label("building"), 0);
      int64_t count = skipped_;
      if (count > 0) progress.start_at(count, records_.progress());
      while (auto record = records_.next()) {
        stop_if_interrupted(options_.interrupt);
        const EncodedDocument document = encode_record(std::move(*record), encoding_);
        if (!shard_.empty() && shard_.bytes_with(document) > options_.max_shard_bytes) write_shard();
        shard_.add(document);
        progress.set(++count, records_.progress());
      }
      if (!shard_.empty()) write_shard();
    }
    if (manifest_.shards.empty()) fail(options_.name, "has no records, so that there is nothing to build");
    write_manifest(options_.out / kManifestName, manifest_);
    fs::remove(options_.out / kPartialManifestName);
  }

 private:
  std::string label(const char* what) const { return fmt::format("{} {}", what, options_.name); }

  void write_shard() {
    ShardEntry entry{fmt::format("shard-{:05}.safetensors", manifest_.shards.size()), "", shard_.num_documents(),
                     shard_.num_tokens(), shard_.num_images()};
    shard_.write(options_.out / entry.file);
    entry.hash = io::hash_of_file(options_.out / entry.file);
    manifest_.shards.push_back(std::move(entry));
    write_manifest(options_.out / kPartialManifestName, manifest_);
  }

  RecordSource& records_;
  const Encoding& encoding_;
  const BuildOptions& options_;
  Manifest manifest_;
  ShardWriter shard_;
  int64_t skipped_ = 0;  // records of earlier shards
};

}  // namespace

void build(RecordSource& records, const Encoding& encoding, const BuildOptions& options) {
  const Manifest wanted{
      records.fingerprint(), encoding_hash(encoding), tokenizer_hash(*encoding.tokenizer), token_range(encoding), {}};
  const auto lock = io::lock_directory(options.out);
  if (!lock) fail(options.out.string(), "another build is writing to it; wait for that, or name another directory");
  const fs::path whole = options.out / kManifestName, partial = options.out / kPartialManifestName;
  if (io::path_exists(whole)) {
    check_same(options.out, read_manifest(whole), wanted, "a dataset");
    fs::remove(partial);  // a build may have been killed just before
    return;
  }
  remove_temporary_files(options.out);
  Builder builder(records, encoding, options, wanted);
  if (io::path_exists(partial)) {
    const Manifest earlier = read_manifest(partial);
    check_same(options.out, earlier, wanted, "an unfinished dataset");
    builder.go_on(earlier);
  } else if (!fs::is_empty(options.out)) {
    fail(options.out.string(), "is not empty and holds no dataset; name another directory");
  } else {
    write_manifest(partial, wanted);
  }
  StoredVocabulary::write(options.out, *encoding.tokenizer);
  builder.run();
}

}  // namespace puna::data
