// Checkpoints: what is written comes back bit for bit, and nothing that a kill, a bad disk or a full one leaves is
// believed.
#include "train/checkpoint.h"
#include "train/checkpoint_write.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <random>
#include <thread>

#include "base/error.h"
#include "io/file.h"
#include "io/hash.h"
#include "tests/support/golden.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kMaxFile = int64_t{1} << 30;

// Every type that a run stores, with odd shapes and a NaN, as a function of the step.
Checkpoint sample(int64_t step) {
  const auto ramp = at::arange(12, at::kDouble) * 0.37 + static_cast<double>(step);
  Checkpoint checkpoint;
  checkpoint.step = step;
  auto& tensors = checkpoint.tensors;
  tensors["weights/layers.0.f32"] = ramp.to(at::kFloat).view({3, 4});
  tensors["weights/transposed"] = ramp.to(at::kFloat).view({3, 4}).t();
  tensors["adam_m/f64"] = ramp / 3;
  tensors["adam_v/bf16"] = ramp.to(at::kBFloat16).view({2, 1, 6});
  tensors["random/u8"] = at::arange(7, at::kByte);
  tensors["data/i64"] = at::tensor({std::numeric_limits<int64_t>::min(), step});
  tensors["scalar"] = at::tensor(std::numeric_limits<float>::quiet_NaN()).squeeze();
  tensors["empty"] = at::empty({0, 5}, at::kFloat);
  checkpoint.state = {{"data", {{"position", step * 3}}}, {"loss", 0.1}, {"seed", uint64_t{1} << 63}};
  return checkpoint;
}

void expect_equal(const Checkpoint& actual, const Checkpoint& expected) {
  EXPECT_EQ(actual.step, expected.step);
  EXPECT_EQ(actual.state, expected.state);
  ASSERT_EQ(actual.tensors.size(), expected.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    ASSERT_TRUE(actual.tensors.contains(name)) << name;
    const at::Tensor got = actual.tensors.at(name), want = tensor.contiguous();
    ASSERT_EQ(got.scalar_type(), want.scalar_type()) << name;
    ASSERT_EQ(got.sizes(), want.sizes()) << name;
    EXPECT_EQ(std::memcmp(got.const_data_ptr(), want.const_data_ptr(), want.nbytes()), 0) << name;
  }
}

void save(const CheckpointOptions& options, std::vector<int64_t> steps) {
  CheckpointWriter writer(options);
  for (const int64_t step : steps) writer.save(sample(step));
  writer.wait();
}

// The newest good one, and what was said of damaged ones.
std::pair<LoadedCheckpoint, std::vector<std::string>> load_newest(const fs::path& dir) {
  std::vector<std::string> damaged;
  auto loaded = load_newest_checkpoint(dir, [&](const std::string& message) { damaged.push_back(message); });
  return {std::move(loaded), std::move(damaged)};
}

std::string message_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Checkpoint, ComesBackBitForBit) {
  const test::TemporaryDirectory dir;
  for (const int64_t max_shard_bytes : {int64_t{1}, int64_t{100}, int64_t{1} << 30}) {
    const fs::path run = dir.path() / std::to_string(max_shard_bytes);
    save({run, 2, 0, max_shard_bytes}, {10});
    const auto [loaded, damaged] = load_newest(run);
    expect_equal(loaded.checkpoint, sample(10));
    EXPECT_EQ(loaded.dir, run / "step-00000010");
    EXPECT_TRUE(damaged.empty());
    EXPECT_EQ(io::read_file(run / "latest", 100), "step-00000010\n");
    EXPECT_EQ(names_in(loaded.dir).size(), 1 + (max_shard_bytes == 1 ? 8u : max_shard_bytes == 100 ? 3u : 1u));
  }
}

TEST(Checkpoint, WithoutTensorsComesBackToo) {
  const test::TemporaryDirectory dir;
  Checkpoint empty;
  CheckpointWriter writer({dir.path()});
  writer.save(empty);
  writer.wait();
  expect_equal(load_checkpoint(dir.path() / "step-00000000/"), empty);
}

TEST(Checkpoint, IsOfTheMomentOfSave) {
  const test::TemporaryDirectory dir;
  CheckpointWriter writer({dir.path(), 0});
  Checkpoint changing = sample(1);
  changing.tensors["big"] = at::ones({1 << 20}, at::kFloat);
  for (int64_t step = 1; step <= 4; ++step) {
    changing.step = step;
    changing.tensors["big"].fill_(step);
    writer.save(changing);
    changing.tensors["big"].fill_(-1);
    changing.tensors["weights/layers.0.f32"].fill_(7);
  }
  // Another shape, another type, one that goes and one that comes: the memory of the last save does not show.
  Checkpoint other = sample(5);
  other.tensors["big"] = at::ones({3}, at::kDouble);
  other.tensors.erase("empty");
  other.tensors["new"] = at::zeros({2});
  writer.save(other);
  writer.wait();
  EXPECT_THAT(checkpoint_steps(dir.path()), ElementsAre(1, 2, 3, 4, 5));
  for (int64_t step = 1; step <= 4; ++step) {
    const auto loaded = load_checkpoint(dir.path() / fmt::format("step-{:08}", step));
    EXPECT_TRUE(loaded.tensors.at("big").eq(step).all().item<bool>()) << step;
  }
  expect_equal(load_newest(dir.path()).first.checkpoint, other);
}

TEST(Checkpoint, OldOnesGoByTheRules) {
  const test::TemporaryDirectory dir;
  const auto steps_after = [&](const char* name, int keep_last, int64_t keep_every) {
    save({dir.path() / name, keep_last, keep_every}, {5, 10, 15, 20, 25, 30, 35});
    return checkpoint_steps(dir.path() / name);
  };
  EXPECT_THAT(steps_after("two", 2, 0), ElementsAre(30, 35));
  EXPECT_THAT(steps_after("one", 1, 0), ElementsAre(35));
  EXPECT_THAT(steps_after("all", 0, 10), ElementsAre(5, 10, 15, 20, 25, 30, 35));
  EXPECT_THAT(steps_after("every", 1, 10), ElementsAre(10, 20, 30, 35));
  EXPECT_THAT(names_in(dir.path() / "two"), ElementsAre("latest", "step-00000030", "step-00000035"));
}

TEST(Checkpoint, NewerOnesOfAnotherCourseAreLeftAlone) {
  const test::TemporaryDirectory dir;
  save({dir.path(), 0}, {10, 20, 30, 40});
  save({dir.path(), 1}, {25});
  EXPECT_THAT(checkpoint_steps(dir.path()), ElementsAre(25, 30, 40));
  EXPECT_EQ(io::read_file(dir.path() / "latest", 100), "step-00000025\n");
}

TEST(Checkpoint, TheSameStepIsReplaced) {
  const test::TemporaryDirectory dir;
  CheckpointWriter writer({dir.path()});
  writer.save(sample(10));
  Checkpoint again = sample(10);
  again.state["loss"] = 7;
  writer.save(again);
  writer.wait();
  expect_equal(load_newest(dir.path()).first.checkpoint, again);
  EXPECT_THAT(names_in(dir.path()), ElementsAre("latest", "step-00000010"));
}

TEST(Checkpoint, DamagedNewestIsNamedAndTheOneBeforeUsed) {
  const test::TemporaryDirectory dir;
  save({dir.path() / "good", 0, 0, 60}, {10, 20});
  const auto damaged_by = [&](const fs::path& file, const std::function<void(const fs::path&)>& damage) {
    const fs::path run = dir.path() / "damaged";
    fs::remove_all(run);
    fs::copy(dir.path() / "good", run, fs::copy_options::recursive);
    damage(run / "step-00000020" / file);
    const auto [loaded, messages] = load_newest(run);
    expect_equal(loaded.checkpoint, sample(10));
    ASSERT_EQ(messages.size(), 1u) << file;
    EXPECT_THAT(messages[0], HasSubstr((run / "step-00000020" / file).string()));
  };
  for (const std::string& file : names_in(dir.path() / "good/step-00000020")) {
    const auto size = static_cast<int64_t>(fs::file_size(dir.path() / "good/step-00000020" / file));
    damaged_by(file, [](const fs::path& path) { fs::remove(path); });
    for (int64_t kept = 0; kept < size; kept += 1 + size / 9)
      damaged_by(file, [&](const fs::path& path) { fs::resize_file(path, static_cast<uintmax_t>(kept)); });
    for (int64_t at = 0; at + 1 < size; at += 1 + size / 40)  // the manifest's line end says nothing
      damaged_by(file, [&](const fs::path& path) {
        std::string bytes = io::read_file(path, kMaxFile);
        bytes[static_cast<size_t>(at)] ^= 1;
        std::ofstream(path, std::ios::binary) << bytes;
      });
    damaged_by(file, [](const fs::path& path) { std::ofstream(path, std::ios::app) << "x"; });
  }
}

TEST(Checkpoint, WithoutAnyWholeOneTheReasonsAreSaid) {
  const test::TemporaryDirectory dir;
  EXPECT_THAT(message_of([&] { load_newest(dir.path()); }), HasSubstr("holds no checkpoint"));
  EXPECT_THAT(message_of([&] { load_newest(dir.path() / "none"); }), HasSubstr("holds no checkpoint"));
  save({dir.path(), 0}, {10, 20});
  fs::remove(dir.path() / "step-00000010/manifest.json");
  fs::resize_file(dir.path() / "step-00000020/shard-00001.safetensors", 9);
  const std::string message = message_of([&] { load_newest(dir.path()); });
  EXPECT_THAT(message, HasSubstr("step-00000010/manifest.json"));
  EXPECT_THAT(message, HasSubstr("step-00000020/shard-00001.safetensors] has 9 bytes"));
}

// `change` edits the manifest, whose hash is then made right again.
std::string message_with_manifest(const std::function<void(Json&)>& change) {
  const test::TemporaryDirectory dir;
  save({dir.path()}, {10});
  const fs::path path = dir.path() / "step-00000010/manifest.json";
  Json json = read_json_file(path);
  json.erase("hash");
  change(json);
  const std::string text = json.dump();
  if (json.is_object()) json["hash"] = io::hash_of(std::as_bytes(std::span(text)));
  io::write_file(path, json.dump());
  return message_of([&] { load_checkpoint(dir.path() / "step-00000010"); });
}

TEST(Checkpoint, HostileManifestsAreRefused) {
  EXPECT_EQ(message_with_manifest([](Json&) {}), "no error");
  const auto with = [](const char* pointer, const Json& value) {
    return message_with_manifest([&](Json& json) { json[Json::json_pointer(pointer)] = value; });
  };
  EXPECT_THAT(message_with_manifest([](Json& json) { json = Json::array(); }), HasSubstr("no JSON object"));
  for (const char* key : {"format", "version", "step", "state", "shards", "tensors"})
    EXPECT_THAT(message_with_manifest([&](Json& json) { json.erase(key); }), HasSubstr(key)) << key;
  EXPECT_THAT(with("/format", "gguf"), HasSubstr("is not the manifest"));
  EXPECT_THAT(with("/version", 2), HasSubstr("has version 2"));
  for (const Json& step : {Json(-1), Json(1.5), Json("10"), Json(std::numeric_limits<uint64_t>::max())})
    EXPECT_THAT(with("/step", step), HasSubstr("'step' of the manifest is no whole number"));
  EXPECT_THAT(with("/step", 11), HasSubstr("is of step 11, the directory's name says 10"));
  for (const char* name : {"../shard-00001.safetensors", "/etc/passwd", "shard-00002.safetensors", ""})
    EXPECT_THAT(with("/shards/0/file", name), HasSubstr("expected 'shard-00001.safetensors'"));
  EXPECT_THAT(with("/shards/0/bytes", 17), HasSubstr("the manifest says 17"));
  EXPECT_THAT(with("/shards/0/hash", "00"), HasSubstr("does not hash"));
  EXPECT_THAT(with("/shards/1", Json{{"file", "shard-00002.safetensors"}, {"bytes", 1}, {"hash", ""}}),
              HasSubstr("shard-00002.safetensors"));
  EXPECT_THAT(with("/tensors/empty/shard", 1), HasSubstr("in shard 1, there are 1"));
  EXPECT_THAT(with("/tensors/empty/dtype", "F33"), HasSubstr("unknown dtype"));
  EXPECT_THAT(with("/tensors/empty/dtype", "F16"), HasSubstr("the manifest says F16"));
  EXPECT_THAT(with("/tensors/empty/shape", Json{1 << 20, 1 << 20, 1 << 20, 1 << 20}), HasSubstr("the manifest says"));
  EXPECT_THAT(with("/tensors/more", Json{{"dtype", "F32"}, {"shape", {1}}, {"shard", 0}}),
              HasSubstr("lacks the tensor"));
  EXPECT_THAT(message_with_manifest([](Json& json) { json["tensors"].erase("empty"); }), HasSubstr("does not place"));
}

TEST(Checkpoint, WhatKilledRunsLeftIsPassedOverAndRemoved) {
  const test::TemporaryDirectory dir;
  save({dir.path()}, {10});
  fs::copy(dir.path() / "step-00000010", dir.path() / "step-00000020.tmp");
  io::write_file(dir.path() / "latest.tmp.77.0", "step-0");
  io::write_file(dir.path() / "step-00000030", "a file, no directory");
  io::write_file(dir.path() / "notes.tmp", "not ours");
  EXPECT_EQ(load_newest(dir.path()).first.checkpoint.step, 10);
  const CheckpointWriter writer({dir.path()});
  EXPECT_THAT(names_in(dir.path()), ElementsAre("latest", "notes.tmp", "step-00000010", "step-00000030"));
}

TEST(Checkpoint, OnesThatWereBeingReplacedArePutBackOrRemoved) {
  const test::TemporaryDirectory dir;
  save({dir.path(), 0}, {10, 20});
  fs::rename(dir.path() / "step-00000020", dir.path() / "step-00000020.old");
  fs::copy(dir.path() / "step-00000010", dir.path() / "step-00000010.old");
  const CheckpointWriter writer({dir.path()});
  EXPECT_THAT(names_in(dir.path()), ElementsAre("latest", "step-00000010", "step-00000020"));
  EXPECT_EQ(load_newest(dir.path()).first.checkpoint.step, 20);
}

TEST(Checkpoint, SecondWriterOfADirectoryIsRefused) {
  const test::TemporaryDirectory dir;
  {
    const CheckpointWriter writer({dir.path()});
    EXPECT_THAT(message_of([&] { CheckpointWriter({dir.path()}); }), HasSubstr("another run"));
  }
  CheckpointWriter({dir.path()}).save(sample(1));
  EXPECT_THAT(checkpoint_steps(dir.path()), ElementsAre(1));
  io::write_file(dir.path() / "file", "");
  EXPECT_THAT(message_of([&] { CheckpointWriter({dir.path() / "file"}); }), HasSubstr("cannot be made"));
}

// Files may not grow over `bytes` while this lives: what a full disk does, without one.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_ = {};
  void (*handler_)(int);
};

TEST(Checkpoint, FailedWritesAreToldOnceAndLoseNothing) {
  const test::TemporaryDirectory dir;
  CheckpointWriter writer({dir.path(), 1});
  writer.save(sample(10));
  writer.wait();
  Checkpoint big = sample(20);
  big.tensors["big"] = at::zeros({1 << 16}, at::kFloat);
  std::string message;
  {
    const FileSizeLimit limit(100'000);
    writer.save(big);
    message = message_of([&] { writer.save(sample(30)); });
  }
  EXPECT_THAT(message, HasSubstr((dir.path() / "step-00000020").string()));
  EXPECT_THAT(message,
              HasSubstr("over the limit on the size of files; raise it (ulimit -f); older checkpoints are intact"));
  EXPECT_THAT(message, testing::Not(HasSubstr("on disk"))) << "there is room";
  EXPECT_THAT(names_in(dir.path()), ElementsAre("latest", "step-00000010"));
  expect_equal(load_newest(dir.path()).first.checkpoint, sample(10));
  writer.save(big);
  writer.wait();
  expect_equal(load_newest(dir.path()).first.checkpoint, big);
}

TEST(Checkpoint, WhatTheDiskCannotHoldIsRefusedBeforeItIsCopied) {
  const test::TemporaryDirectory dir;
  CheckpointWriter writer({dir.path()});
  Checkpoint huge = sample(10);
  huge.tensors["huge"] = at::zeros({1}).expand({int64_t{1} << 50});  // 4 PiB of one number
  EXPECT_THAT(message_of([&] { writer.save(huge); }), HasSubstr("needs 4.08 PiB on disk"));
  writer.wait();
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Checkpoint, NeedsLittleMoreOnDiskThanItsFilesHave) {
  const test::TemporaryDirectory dir;
  Checkpoint checkpoint = sample(10);
  for (int i = 0; i < 200; ++i) checkpoint.tensors[fmt::format("weights/many/{}", i)] = at::zeros({4, 5, 6});
  checkpoint.tensors["big"] = at::zeros({1 << 20}, at::kFloat);
  CheckpointWriter({dir.path()}).save(checkpoint);
  int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir.path()))
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  EXPECT_GT(internal::needed_bytes(checkpoint), bytes);
  EXPECT_LT(internal::needed_bytes(checkpoint), bytes + bytes / 20 + (64 << 10));
}

// Another process saves as fast as it can and is killed at any moment: what is there is whole, and steps only grow.
TEST(Checkpoint, SurvivesKillsAtRandomMoments) {
  const test::TemporaryDirectory dir;
  std::mt19937 random(7);
  int64_t step = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const pid_t child = fork();
    if (child == 0) {
      CheckpointWriter writer({dir.path(), 2, 0, 200});
      for (int64_t next = step + 1;; ++next) writer.save(sample(next));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 200'000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (checkpoint_steps(dir.path()).empty()) continue;
    const auto [loaded, damaged] = load_newest(dir.path());
    EXPECT_THAT(damaged, ElementsAre());
    EXPECT_GE(loaded.checkpoint.step, step);
    step = loaded.checkpoint.step;
    expect_equal(loaded.checkpoint, sample(step));
  }
  EXPECT_GT(step, 10);
}

}  // namespace
}  // namespace puna::train
