#include "text/training_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <random>

#include "base/error.h"
#include "tests/support/golden.h"
#include "text/bpe_trainer.h"
#include "text/split.h"

namespace puna::text {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Counts = std::map<std::string, int64_t>;

Counts as_map(const PieceCounts& counts) {
  Counts out;
  counts.for_each([&](std::string_view piece, int64_t count) { out[std::string(piece)] += count; });
  return out;
}

Counts pieces_of(std::string_view text) {
  PieceCounts counts;
  counts.add_text(text);
  return as_map(counts);
}

void write(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// Characters of every kind that the pattern tells apart.
std::string random_text(std::mt19937& random, size_t characters) {
  static const std::vector<std::string> kCharacters = {"a",
                                                       "b",
                                                       "Z",
                                                       "1",
                                                       "2",
                                                       " ",
                                                       " ",
                                                       "\n",
                                                       "\r",
                                                       "/",
                                                       "'",
                                                       "s",
                                                       "'s",
                                                       "-",
                                                       "\t",
                                                       "\xC3\xA9",
                                                       "\xCC\x81",
                                                       "\xE4\xBD\xA0",
                                                       "\xC2\xA0",
                                                       "\xE2\x80\xA8",
                                                       "\xF0\x9F\xA6\x99",
                                                       "\xC2\xB2",
                                                       " the ",
                                                       "\xFF"};
  std::string text;
  for (size_t i = 0; i < characters; ++i) text += kCharacters[random() % kCharacters.size()];
  return text;
}

TEST(PieceCounts, AreThoseOfTheSplitPattern) {
  EXPECT_EQ(pieces_of("It's 12345 it's\n\n it's"),
            (Counts{{"It's", 1}, {" ", 1}, {"123", 1}, {"45", 1}, {" it's", 2}, {"\n\n", 1}}));
  EXPECT_EQ(pieces_of("a\xFF\xFFz \xE4\xBD"),
            (Counts{{"a", 1}, {"\xFF", 2}, {"z", 1}, {" ", 1}, {"\xE4", 1}, {"\xBD", 1}}));
  EXPECT_EQ(pieces_of(""), Counts{});
}

TEST(PieceCounts, GrowsAndAddsUp) {
  PieceCounts one, two;
  Counts expected;
  for (int i = 0; i < 30000; ++i) {
    std::string word = " word";
    for (int rest = i; rest > 0; rest /= 26) word += static_cast<char>('a' + rest % 26);
    (i % 3 ? one : two).add_text(word);
    ++expected[word];
  }
  two.add_text(" both");
  one.add_text(" both");
  expected[" both"] = 2;
  one.add_all(two);
  EXPECT_EQ(as_map(one), expected);
  EXPECT_EQ(one.num_pieces(), 30002);
  EXPECT_EQ(one.num_distinct(), std::ssize(expected));
}

TEST(TrainingText, CutsLeaveThePiecesAsTheyAre) {
  std::mt19937 random(7);
  int cuts = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_text(random, 40);
    const size_t cut = next_cut(text, 1 + random() % text.size());
    if (cut == text.size()) continue;
    ++cuts;
    PieceCounts counts;
    counts.add_text(std::string_view(text).substr(0, cut));
    counts.add_text(std::string_view(text).substr(cut));
    ASSERT_EQ(as_map(counts), pieces_of(text)) << testing::PrintToString(text) << " cut at " << cut;
  }
  EXPECT_GT(cuts, 500);
}

TEST(TrainingText, BlocksAndThreadsChangeNothing) {
  const test::TemporaryDirectory dir;
  std::mt19937 random(3);
  PieceCounts whole;
  for (const auto& [name, characters] :
       std::map<std::string, size_t>{{"a.txt", 3'000'000}, {"b/c", 700'000}, {"d", 9}}) {
    const std::string text = random_text(random, characters);
    write(dir.path() / name, text);
    whole.add_text(text);
  }
  const auto files = find_training_files(std::vector<fs::path>{dir.path()});
  EXPECT_EQ(files.files.size(), 3u);
  const BpeOptions options{.num_tokens = 400};
  const auto tokens = train_bpe(whole, options).tokens;
  for (int64_t threads : {1, 2, 3, 7}) {
    const auto counts = count_pieces(files, threads);
    ASSERT_TRUE(as_map(counts) == as_map(whole)) << threads << " threads";
    EXPECT_EQ(train_bpe(counts, options).tokens, tokens) << threads << " threads";
  }
}

TEST(TrainingText, TextWithoutAPlaceToCutIsOneBlock) {
  const test::TemporaryDirectory dir;
  write(dir.path() / "long", std::string(2'500'000, 'x') + "\n");
  const auto counts = count_pieces(find_training_files(std::vector<fs::path>{dir.path() / "long"}), 2);
  EXPECT_EQ(counts.num_distinct(), 2);
  EXPECT_EQ(counts.num_bytes(), 2'500'001);
}

TEST(TrainingText, JsonLinesGiveTextsAndMessages) {
  const test::TemporaryDirectory dir;
  const fs::path file = dir.path() / "x.jsonl";
  write(file, R"({"text": "one\n", "id": "not this"})"
              "\n\n"
              R"({"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": [)"
              R"({"type": "image", "image": "no.png"}, {"type": "text", "text": "three"}]}]})");
  const auto files = find_training_files(std::vector<fs::path>{file});
  EXPECT_EQ(as_map(count_pieces(files, 2)), (Counts{{"one", 1}, {"\n", 1}, {"two", 1}, {"three", 1}}));
}

TEST(TrainingText, JsonLinesAcrossBlocks) {
  const test::TemporaryDirectory dir;
  std::string lines;
  for (int i = 0; i < 60'000; ++i)
    lines += R"({"text": "alpha beta )" + std::string(static_cast<size_t>(i % 50), 'y') + "\"}\n";
  ASSERT_GT(lines.size(), size_t{2} << 20);
  write(dir.path() / "x.jsonl", lines);
  auto counts = as_map(count_pieces(find_training_files(std::vector<fs::path>{dir.path()}), 3));
  EXPECT_EQ(counts["alpha"], 60'000);
  EXPECT_EQ(counts[" beta"], 60'000);
}

std::string error_of(const fs::path& path) {
  try {
    count_pieces(find_training_files(std::vector<fs::path>{path}), 2);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TrainingText, ErrorsNameFileAndLine) {
  const test::TemporaryDirectory dir;
  const fs::path file = dir.path() / "x.jsonl";
  EXPECT_THAT(error_of(file), HasSubstr("no such file"));
  write(file, "{\"text\": \"a\"}\n\n{\"text\": \n");
  EXPECT_THAT(error_of(file), HasSubstr("x.jsonl:3]"));
  write(file, "{\"text\": \"a\"}\n{\"txt\": \"a\"}\n");
  EXPECT_THAT(error_of(file), HasSubstr("x.jsonl:2] has neither"));
  write(file, "[1]\n");
  EXPECT_THAT(error_of(file), HasSubstr("x.jsonl:1] has neither"));
}

TEST(TrainingText, DirectoriesLeaveOutHiddenAndBinaryFiles) {
  const test::TemporaryDirectory dir;
  write(dir.path() / "a.txt", "text");
  write(dir.path() / "sub/b", "more");
  write(dir.path() / "empty", "");
  write(dir.path() / ".git/c", "hidden");
  write(dir.path() / "sub/.d", "hidden");
  write(dir.path() / "e.bin", std::string_view("\x7F"
                                               "ELF\0\0",
                                               6));
  const auto files = find_training_files(std::vector<fs::path>{dir.path()});
  EXPECT_EQ(files.files.size(), 2u);
  EXPECT_EQ(files.left_out, 1);
  EXPECT_EQ(files.bytes, 8);
}

}  // namespace
}  // namespace puna::text
