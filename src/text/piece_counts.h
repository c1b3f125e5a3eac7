// The distinct pieces of a text, and how often each occurs: all that training a tokenizer needs of the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace puna::text {

class PieceCounts {
 public:
  struct Entry {
    uint64_t key = 0;  // key_of() the bytes; 0: a free slot
    uint64_t begin = 0;
    int64_t count = 0;
    uint32_t size = 0;
  };

  PieceCounts();

  /// Splits a document by Llama 4's pattern. An invalid byte is a piece of its own.
  void add_text(std::string_view text);
  void add(std::string_view piece, uint64_t key, int64_t count);
  void add_all(const PieceCounts& other);

  int64_t num_distinct() const { return num_distinct_; }
  int64_t num_pieces() const;
  int64_t num_bytes() const;

  /// Calls use(piece, count) for each distinct piece, in no particular order.
  template <typename Use>
  void for_each(const Use& use) const {
    for (const Entry& entry : slots_)
      if (entry.key != 0) use(bytes_of(entry), entry.count);
  }

 private:
  std::string_view bytes_of(const Entry& entry) const { return {bytes_.data() + entry.begin, entry.size}; }
  void add_valid(std::string_view text);
  void grow();

  std::vector<Entry> slots_;  // open addressing, a power of two
  int shift_;
  int64_t num_distinct_ = 0;
  std::string bytes_;
};

}  // namespace puna::text
