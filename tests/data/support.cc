#include "tests/data/support.h"

#include <stdexcept>

#include "io/image.h"
#include "text/split.h"
#include "text/utf8.h"

namespace puna::test {
namespace {

const std::vector<std::string> kMerged = {"\n\n", "\n\n\n", "th", "the", "in", "us", "user"};

std::string byte_level(std::string_view bytes) {
  std::string out;
  for (char c : bytes) {
    const auto byte = static_cast<uint32_t>(static_cast<uint8_t>(c));
    uint32_t code = byte;
    if (byte <= 0x20) code = 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0) code = 0x121 + byte - 0x7F;
    if (byte == 0xAD) code = 0x143;
    text::append_utf8(out, code);
  }
  return out;
}

}  // namespace

std::shared_ptr<const text::Tokenizer> data_tokenizer() {
  Json json;
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", text::kSplitPattern}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  Json& model = json["model"];
  model = {{"type", "BPE"}, {"ignore_merges", true}, {"merges", Json::array()}};
  int id = 0;
  for (int b = 0; b < 256; ++b) model["vocab"][byte_level(std::string(1, static_cast<char>(b)))] = id++;
  for (const auto& token : kMerged) model["vocab"][byte_level(token)] = id++;
  const auto merge = [&](const char* a, const char* b) { model["merges"].push_back({byte_level(a), byte_level(b)}); };
  merge("\n", "\n"), merge("\n\n", "\n"), merge("t", "h"), merge("th", "e"), merge("i", "n"), merge("u", "s");
  for (const char* name :
       {"<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>",
        "<|image_start|>", "<|image_end|>", "<|image|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"})
    json["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", true}});
  return text::Tokenizer::from_hf_json(json, "test tokenizer");
}

data::Encoding data_encoding() {
  static const auto tokenizer = data_tokenizer();
  data::Encoding encoding;
  encoding.tokenizer = tokenizer;
  encoding.image_processor.tile_size = 16;
  encoding.image_processor.max_tiles = 6;
  encoding.tokens_per_tile = 4;
  return encoding;
}

std::string png(int width, int height, uint8_t shade) {
  const io::Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), shade)};
  const auto bytes = io::encode_png(image);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

data::Record document(std::string text) { return document_with_images({std::move(text)}, {}); }

data::Record document_with_images(std::vector<std::string> texts, std::vector<std::string> images) {
  data::Record record;
  text::Message& message = record.messages.emplace_back();
  for (size_t i = 0; i < texts.size(); ++i) {
    message.parts.emplace_back(text::TextPart{texts[i]});
    if (i < images.size()) message.parts.emplace_back(text::ImagePart{i});
  }
  record.images = std::move(images);
  record.id = "record";
  return record;
}

data::Record chat(std::vector<text::Message> messages, std::vector<std::string> images) {
  return {data::Record::Kind::kChat, std::move(messages), std::move(images), "chat"};
}

std::optional<data::Record> ListSource::next() {
  if (next_ == fail_at_) throw std::runtime_error("killed");
  if (next_ == records_.size()) return std::nullopt;
  return records_[next_++];
}

std::shared_ptr<const data::Dataset> build_dataset(const std::filesystem::path& out, std::vector<data::Record> records,
                                                   int64_t max_shard_bytes) {
  ListSource source(std::move(records));
  data::build(source, data_encoding(), {out, max_shard_bytes, "test"});
  return data::Dataset::open(out);
}

std::string show(const data::DocumentView& document) {
  const auto tokenizer = data_encoding().tokenizer;
  std::string text;
  bool inside = false;
  for (size_t i = 0; i < document.tokens.size(); ++i) {
    if ((document.loss[i] == 1) != inside) text += inside ? "]" : "[";
    inside = document.loss[i] == 1;
    const auto bytes = tokenizer->token_bytes(document.tokens[i]);
    text += bytes == "<|patch|>" ? "." : bytes;
  }
  return text + (inside ? "]" : "");
}

}  // namespace puna::test
