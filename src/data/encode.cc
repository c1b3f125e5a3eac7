#include "data/encode.h"

#include <algorithm>

#include "base/error.h"
#include "io/hash.h"
#include "io/image.h"

namespace puna::data {
namespace {

constexpr int kEncodingVersion = 1;
constexpr size_t kHeaderTextBytes = 2;  // the "\n\n" between a header and what is said

TokenId special(const Encoding& encoding, const char* name) {
  const auto id = encoding.tokenizer->special(name);
  if (!id) fail("data", "the tokenizer has no special token '{}'; is it that of a Llama 4 model?", name);
  return *id;
}

text::ImageTiles tiles_of(const std::string& encoded, const Encoding& encoding, const std::string& where) {
  const io::Image image = io::decode_image(std::as_bytes(std::span(encoded)), where);
  const auto geometry = media::tile_geometry(image.height, image.width, encoding.image_processor);
  return {geometry.rows, geometry.columns, encoding.tokens_per_tile};
}

std::vector<text::ImageTiles> all_tiles(const Record& record, const Encoding& encoding) {
  if (!record.images.empty() && encoding.tokens_per_tile == 0)
    fail(record.id, "has images, but the model has no vision; leave the record out, or use a model with vision");
  std::vector<text::ImageTiles> tiles;
  for (size_t i = 0; i < record.images.size(); ++i)
    tiles.push_back(tiles_of(record.images[i], encoding, fmt::format("{}: image {}", record.id, i + 1)));
  return tiles;
}

/// Ids of the parts between <|begin_of_text|> and <|end_of_text|>; adjacent texts are one.
std::vector<TokenId> encode_document(const Record& record, const std::vector<text::ImageTiles>& tiles,
                                     const Encoding& encoding) {
  if (record.messages.size() != 1) fail(record.id, "a document has one message, not {}", record.messages.size());
  std::vector<TokenId> ids = {special(encoding, "<|begin_of_text|>")};
  const auto append = [&](const std::vector<TokenId>& more) { ids.insert(ids.end(), more.begin(), more.end()); };
  std::string pending;
  const auto flush = [&] {
    append(encoding.tokenizer->encode(pending));
    pending.clear();
  };
  size_t next_image = 0;
  for (const text::Part& part : record.messages[0].parts) {
    if (const auto* piece = std::get_if<text::TextPart>(&part)) {
      pending += piece->text;
      continue;
    }
    if (std::get<text::ImagePart>(part).image != next_image || next_image == tiles.size())
      fail(record.id, "its images are not referred to in order, each once");
    flush();
    append(text::image_tokens(*encoding.tokenizer, tiles[next_image++]));
  }
  flush();
  if (next_image != tiles.size()) fail(record.id, "has {} images, {} of which stand in it", tiles.size(), next_image);
  ids.push_back(special(encoding, "<|end_of_text|>"));
  return ids;
}

/// Loss on the tokens that begin in what the assistant says, and on the one that ends its turn.
std::vector<uint8_t> chat_loss(const std::vector<TokenId>& ids, const Record& record, const Encoding& encoding) {
  const TokenId header_start = special(encoding, "<|header_start|>"), header_end = special(encoding, "<|header_end|>");
  std::vector<uint8_t> loss(ids.size(), 0);
  size_t message = 0;  // of those begun so far; no text can spell the header tokens
  bool in_body = false;
  size_t body_bytes = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == header_start) {
      ++message, in_body = false;
      continue;
    }
    if (ids[i] == header_end) {
      in_body = true, body_bytes = 0;
      continue;
    }
    if (!in_body) continue;
    PUNA_CHECK(message <= record.messages.size(), "message {} of {}", message, record.messages.size());
    const bool said = record.messages[message - 1].role == text::Role::kAssistant && body_bytes >= kHeaderTextBytes;
    loss[i] = said ? 1 : 0;
    body_bytes += encoding.tokenizer->token_bytes(ids[i]).size();
  }
  PUNA_CHECK(message == record.messages.size(), "{} headers for {} messages", message, record.messages.size());
  return loss;
}

/// Finds where each image's tokens are, and takes the loss off them.
void place_images(EncodedDocument& document, Record& record, const std::vector<text::ImageTiles>& tiles,
                  const Encoding& encoding) {
  if (tiles.empty()) return;
  const TokenId start = special(encoding, "<|image_start|>");
  auto at = document.tokens.begin();
  for (size_t i = 0; i < tiles.size(); ++i) {
    at = std::find(at, document.tokens.end(), start);
    const int64_t first = at - document.tokens.begin(), count = num_image_tokens(tiles[i]);
    PUNA_CHECK(document.tokens.end() - at >= count, "image {} at {} of {}", i, first, document.tokens.size());
    std::fill_n(document.loss.begin() + first, count, uint8_t{0});
    document.images.push_back({std::move(record.images[i]), tiles[i], first});
    at += count;
  }
}

}  // namespace

EncodedDocument encode_record(Record record, const Encoding& encoding) {
  const auto tiles = all_tiles(record, encoding);
  EncodedDocument document;
  if (record.kind == Record::Kind::kDocument) {
    document.tokens = encode_document(record, tiles, encoding);
    document.loss.assign(document.tokens.size(), 1);
    document.loss[0] = 0;
  } else {
    const auto speaks = [](const text::Message& message) { return message.role == text::Role::kAssistant; };
    if (std::none_of(record.messages.begin(), record.messages.end(), speaks))
      fail(record.id, "the assistant says nothing in this chat, so that there is nothing to learn; leave it out");
    try {
      document.tokens = text::encode_chat(*encoding.tokenizer, record.messages, tiles,
                                          {.form = encoding.chat_form, .add_generation_prompt = false});
    } catch (const Error& error) {
      fail(record.id, "{}", error.what());
    }
    document.loss = chat_loss(document.tokens, record, encoding);
  }
  place_images(document, record, tiles, encoding);
  return document;
}

TokenRange token_range(const Encoding& encoding) {
  const auto patch = encoding.tokenizer->special("<|patch|>");
  return {encoding.tokenizer->vocab_size(), encoding.tokens_per_tile > 0 && patch ? *patch : -1};
}

std::string encoding_hash(const Encoding& encoding) {
  std::string text = fmt::format("{} {} {}", kEncodingVersion, tokenizer_hash(*encoding.tokenizer),
                                 encoding.chat_form == text::ChatForm::kMeta ? "meta" : "hugging-face");
  const auto& images = encoding.image_processor;
  if (encoding.tokens_per_tile > 0)
    text += fmt::format(" {} {} {} {}", encoding.tokens_per_tile, images.tile_size, images.max_tiles,
                        images.resize_to_max_canvas);
  return io::hash_of(std::as_bytes(std::span(text)));
}

}  // namespace puna::data
