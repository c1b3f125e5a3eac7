// Datasets: what is built is what is read, builds that were killed go on, and corrupt files are refused by name.
#include "data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "data/shard.h"
#include "io/file.h"
#include "io/hash.h"
#include "tests/data/support.h"
#include "tests/support/golden.h"

namespace puna::data {
namespace {

namespace fs = std::filesystem;
using test::build_dataset;
using testing::HasSubstr;

/// Thirty documents of different lengths, every third with pictures, some of them equal.
std::vector<Record> some_records() {
  std::vector<Record> records;
  for (int i = 0; i < 30; ++i) {
    const std::string text = "number " + std::to_string(i) + std::string(static_cast<size_t>(i * 7 % 50), 'x');
    if (i % 3 == 0)
      records.push_back(test::document_with_images({text, " and ", ""},
                                                   {test::png(16, 16, 7), test::png(30, 16, static_cast<uint8_t>(i))}));
    else
      records.push_back(test::document(text));
  }
  return records;
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::map<std::string, std::string> files_of(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir))
    files[entry.path().filename().string()] = io::read_file(entry.path(), 1 << 24);
  return files;
}

// Without the flush to disk that io::write_file does.
void overwrite(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// Asks to stop when record `at` is read.
class StoppingSource : public test::ListSource {
 public:
  StoppingSource(std::vector<Record> records, int at) : ListSource(std::move(records)), left_(at) {}
  std::optional<Record> next() override {
    stop = left_-- == 0;
    return ListSource::next();
  }
  std::atomic<bool> stop = false;

 private:
  int left_;
};

TEST(Dataset, AnInterruptedBuildStopsAtOnceAndGoesOnLater) {
  const test::TemporaryDirectory dir;
  StoppingSource source(some_records(), 20);
  const BuildOptions options{dir.path() / "stopped", 1 << 10, "test", &source.stop};
  EXPECT_THROW(build(source, test::data_encoding(), options), Interrupted);
  EXPECT_FALSE(fs::exists(options.out / "dataset.json"));
  EXPECT_TRUE(fs::exists(options.out / "shard-00001.safetensors"));
  build_dataset(dir.path() / "stopped", some_records(), 1 << 10);
  build_dataset(dir.path() / "whole", some_records(), 1 << 10);
  EXPECT_EQ(files_of(dir.path() / "stopped"), files_of(dir.path() / "whole"));
}

TEST(Dataset, HoldsWhatWasBuilt) {
  const test::TemporaryDirectory dir;
  const auto dataset = build_dataset(dir.path() / "d", some_records(), 2000);
  EXPECT_GT(files_of(dir.path() / "d").size(), 3u) << "several shards are meant";
  ASSERT_EQ(dataset->num_documents(), 30);
  EXPECT_EQ(dataset->name(), "d");
  EXPECT_EQ(dataset->num_images(), 20);
  EXPECT_EQ(dataset->tokenizer_hash(), tokenizer_hash(*test::data_tokenizer()));
  EXPECT_EQ(dataset->encoding_hash(), encoding_hash(test::data_encoding()));
  int64_t tokens = 0;
  for (int64_t d = 0; d < 30; ++d) {
    const auto document = dataset->document(d);
    const std::string text = "number " + std::to_string(d) + std::string(static_cast<size_t>(d * 7 % 50), 'x');
    tokens += dataset->document_tokens(d);
    ASSERT_EQ(document.tokens.size(), static_cast<size_t>(dataset->document_tokens(d)));
    if (d % 3 != 0) {
      EXPECT_EQ(test::show(document), "<|begin_of_text|>[" + text + "<|end_of_text|>]");
      EXPECT_TRUE(document.images.empty());
      continue;
    }
    const std::string one = "<|image_start|><|image|>....<|image_end|>";
    const std::string two = "<|image_start|>....<|tile_x_separator|>....<|tile_y_separator|><|image|>....<|image_end|>";
    EXPECT_EQ(test::show(document), "<|begin_of_text|>[" + text + "]" + one + "[ and ]" + two + "[<|end_of_text|>]");
    ASSERT_EQ(document.images.size(), 2u);
    EXPECT_EQ(document.images[0].tiles.columns, 1);
    EXPECT_EQ(document.images[1].tiles.rows, 1);
    EXPECT_EQ(document.images[1].tiles.columns, 2);
    for (const ImageView& image : document.images) {
      const auto ids = text::image_tokens(*test::data_tokenizer(), image.tiles);
      EXPECT_EQ(static_cast<int64_t>(ids.size()), num_image_tokens(image.tiles));
      const auto place = document.tokens.subspan(static_cast<size_t>(image.first_token), ids.size());
      EXPECT_TRUE(std::equal(ids.begin(), ids.end(), place.begin(), place.end()));
    }
    const auto bytes = document.images[1].encoded;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
              test::png(30, 16, static_cast<uint8_t>(d)));
  }
  EXPECT_EQ(dataset->num_tokens(), tokens);
}

TEST(Dataset, EqualImagesOfAShardAreStoredOnce) {
  const test::TemporaryDirectory dir;
  const auto dataset = build_dataset(
      dir.path(), {test::document_with_images({"a", "b", "c"}, {test::png(16, 16, 1), test::png(16, 16, 1)})});
  const auto document = dataset->document(0);
  EXPECT_EQ(document.images[0].encoded.data(), document.images[1].encoded.data());
}

TEST(Build, AKilledBuildGoesOnToTheSameBytes) {
  const test::TemporaryDirectory dir;
  build_dataset(dir.path() / "whole", some_records(), 2000);
  const auto expected = files_of(dir.path() / "whole");
  for (size_t kill_at : {0, 1, 7, 12, 29}) {
    const fs::path out = dir.path() / std::to_string(kill_at);
    test::ListSource killed(some_records(), kill_at);
    EXPECT_THROW(build(killed, test::data_encoding(), {out, 2000, "test"}), std::runtime_error);
    EXPECT_THAT(message_of([&] { Dataset::open(out); }), HasSubstr("unfinished"));
    io::write_file(out / "shard-00000.safetensors.tmp.1.0", "half");
    test::ListSource again(some_records());
    build(again, test::data_encoding(), {out, 2000, "test"});
    EXPECT_TRUE(files_of(out) == expected) << "killed at " << kill_at;
  }
}

TEST(Build, KeepsTheFinishedShardsOfAKilledBuild) {
  const test::TemporaryDirectory dir;
  test::ListSource killed(some_records(), 29);
  EXPECT_THROW(build(killed, test::data_encoding(), {dir.path(), 2000, "test"}), std::runtime_error);
  const auto shard = dir.path() / "shard-00000.safetensors";
  const auto written = fs::last_write_time(shard);
  fs::resize_file(dir.path() / "shard-00001.safetensors", 100);  // a broken one is written again
  build_dataset(dir.path(), some_records(), 2000);
  EXPECT_EQ(fs::last_write_time(shard), written);
}

TEST(Build, IsDoneOnceAndSparesOtherDatasets) {
  const test::TemporaryDirectory dir;
  build_dataset(dir.path(), some_records());
  test::ListSource unread(some_records(), 0);
  EXPECT_NO_THROW(build(unread, test::data_encoding(), {dir.path(), 2000, "test"})) << "nothing is to be read";
  test::ListSource other(some_records());
  other.name = "other";
  EXPECT_THAT(message_of([&] {
                build(other, test::data_encoding(), {dir.path(), 2000, "test"});
              }),
              HasSubstr("of other records; name another directory"));
  auto encoding = test::data_encoding();
  encoding.tokens_per_tile = 9;
  test::ListSource same(some_records());
  EXPECT_THAT(message_of([&] {
                build(same, encoding, {dir.path(), 2000, "test"});
              }),
              HasSubstr("another tokenizer or image layout"));
  const test::TemporaryDirectory home;
  io::write_file(home.path() / "letter.txt", "dear");
  EXPECT_THAT(message_of([&] { build(same, encoding, {home.path(), 2000, "test"}); }), HasSubstr("is not empty"));
}

TEST(Build, RefusesRecordsThatCannotBeEncoded) {
  const test::TemporaryDirectory dir;
  const auto error = [&](Record record) {
    return message_of([&] { build_dataset(dir.path() / io::hash_of({}), {std::move(record)}); });
  };
  EXPECT_THAT(error(test::document_with_images({"a", "b"}, {"no image"})), HasSubstr("record: image 1"));
  EXPECT_THAT(error(test::chat({{text::Role::kUser, {text::TextPart{"hi"}}, {}, false}})),
              HasSubstr("nothing to learn"));
  auto encoding = test::data_encoding();
  encoding.tokens_per_tile = 0;
  test::ListSource source({test::document_with_images({"a", "b"}, {test::png(16, 16, 1)})});
  EXPECT_THAT(message_of([&] { build(source, encoding, {dir.path() / "v", 2000, "test"}); }), HasSubstr("no vision"));
}

// Every byte of the shard and of the manifest in turn: refused by name, or the same numbers.
TEST(Dataset, AChangedByteIsNamed) {
  const test::TemporaryDirectory dir;
  build_dataset(dir.path(), {test::document_with_images({"a", "b"}, {test::png(16, 16, 1)})});
  const fs::path shard = dir.path() / "shard-00000.safetensors";
  const std::string good = io::read_file(shard, 1 << 24);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x55);
    overwrite(shard, bad);
    ASSERT_THAT(message_of([&] { Dataset::open(dir.path()); }), HasSubstr("shard-00000.safetensors")) << i;
    message_of([&] { Dataset::open(dir.path(), false)->document(0); });  // an Error or none, never a crash
  }
  for (size_t size = 0; size < good.size(); size += 3) {
    overwrite(shard, good.substr(0, size));
    ASSERT_THAT(message_of([&] { Dataset::open(dir.path(), false); }), HasSubstr("shard-00000.safetensors")) << size;
  }
  fs::remove(shard);
  EXPECT_THAT(message_of([&] { Dataset::open(dir.path()); }), HasSubstr("is missing"));
}

TEST(Dataset, HostileManifestsAreRefused) {
  const test::TemporaryDirectory dir;
  build_dataset(dir.path(), {test::document("a")});
  const fs::path path = dir.path() / "dataset.json";
  const Json good = Json::parse(io::read_file(path, 1 << 20));
  const auto error = [&](const std::function<void(Json&)>& change) {
    Json json = good;
    change(json);
    overwrite(path, json.dump());
    const std::string message = message_of([&] { Dataset::open(dir.path()); });
    EXPECT_THAT(message, HasSubstr("dataset.json"));
    return message;
  };
  EXPECT_THAT(error([](Json& j) { j["shards"][0]["file"] = "../x"; }), HasSubstr("'../x' is refused"));
  EXPECT_THAT(error([](Json& j) { j["shards"][0]["documents"] = -1; }), HasSubstr("'documents' is -1"));
  EXPECT_THAT(error([](Json& j) { j["shards"][0]["tokens"] = 1.5; }), HasSubstr("'tokens' is 1.5"));
  EXPECT_THAT(error([](Json& j) { j["shards"][0]["tokens"] = UINT64_MAX; }), HasSubstr("'tokens'"));
  EXPECT_THAT(error([](Json& j) { j["shards"][0]["hash"] = "0"; }), HasSubstr("'content'"));
  EXPECT_THAT(error([](Json& j) { j["num_tokens"] = 2; }), HasSubstr("'num_tokens' is not 3"));
  EXPECT_THAT(error([](Json& j) { j["shards"] = 3; }), HasSubstr("'shards' is not a list"));
  EXPECT_THAT(error([](Json& j) { j["version"] = 2; }), HasSubstr("version 2"));
  EXPECT_THAT(error([](Json& j) { j["fingerprints"] = ""; }), HasSubstr("did you mean 'fingerprint'?"));
  EXPECT_THAT(error([](Json& j) { j.erase("encoding"); }), HasSubstr("has no 'encoding'"));
  EXPECT_THAT(error([](Json& j) { j = Json::array(); }), HasSubstr("not a JSON object"));
  overwrite(path, good.dump());
  EXPECT_NO_THROW(Dataset::open(dir.path()));
}

// A shard whose hash fits can still be made to mislead: each index is checked by itself.
TEST(Shard, MisleadingTokensAreRefused) {
  const test::TemporaryDirectory dir;
  const fs::path path = dir.path() / "s";
  const auto tokenizer = test::data_tokenizer();
  const TokenRange range{tokenizer->vocab_size(), *tokenizer->special("<|patch|>")};
  const auto error = [&](const std::function<void(EncodedDocument&)>& change) {
    EncodedDocument document{text::image_tokens(*tokenizer, {1, 2, 4}), {}, {{"bytes", {1, 2, 4}, 0}}};
    document.tokens.push_back(65);
    change(document);
    document.loss.resize(document.tokens.size(), 0);
    ShardWriter writer;
    writer.add(document);
    writer.write(path);
    return message_of([&] { Shard::open(path, range); });
  };
  EXPECT_EQ(error([](auto&) {}), "no error");
  EXPECT_THAT(error([](auto& d) { d.tokens.back() = 1 << 20; }), HasSubstr("outside the vocabulary"));
  EXPECT_THAT(error([](auto& d) { d.tokens.back() = -1; }), HasSubstr("outside the vocabulary"));
  EXPECT_THAT(error([&](auto& d) { d.tokens.back() = static_cast<TokenId>(range.patch); }),
              HasSubstr("outside of images"));
  EXPECT_THAT(error([](auto& d) { d.tokens[1] = 65; }), HasSubstr("is not 12 patch tokens"));
  EXPECT_THAT(error([](auto& d) { d.images[0].first_token = 2; }), HasSubstr("do not lie at 2"));
  EXPECT_THAT(error([](auto& d) { d.images[0].first_token = INT64_MIN; }), HasSubstr("do not lie at"));
  EXPECT_THAT(error([](auto& d) { d.images[0].tiles.rows = INT32_MAX; }), HasSubstr("tiles of"));
  EXPECT_THAT(error([](auto& d) { d.images.push_back(d.images[0]); }), HasSubstr("do not lie at 0"));
  EXPECT_THAT(error([](auto& d) { d.loss = {2}; }), HasSubstr("'loss' is 2"));
}

}  // namespace
}  // namespace puna::data
