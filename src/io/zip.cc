#include "io/zip.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "base/error.h"
#include "io/byte_reader.h"
#include "io/text.h"

namespace puna::io {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kEntrySignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr size_t kEndBytes = 22, kLocator64Bytes = 20, kEntryBytes = 46, kMaxComment = 65'535;
constexpr uint16_t kExtra64 = 1, kFlagEncrypted = 1, kFlagSizesFollow = 8, kNone16 = 0xFFFF;
constexpr uint32_t kNone32 = 0xFFFFFFFF;  // "see the zip64 field"

struct Directory {
  uint64_t offset, size, num_entries;
};

// An entry as the central directory states it.
struct Record {
  std::string_view name;
  uint16_t flags, method;
  uint64_t compressed, size, local_offset;
  uint64_t data_begin = 0;
};

class ZipReader {
 public:
  ZipReader(std::span<const std::byte> archive, std::string_view where) : archive_(archive), where_(where) {}

  std::vector<ZipEntry> read() {
    const Directory directory = find_directory();
    std::vector<Record> records = read_directory(directory);
    for (Record& record : records) read_local(record, directory.offset);
    refuse_overlaps(records);
    std::vector<ZipEntry> entries;
    entries.reserve(records.size());
    for (const Record& record : records)
      entries.push_back({record.name, archive_.subspan(record.data_begin, record.size)});
    return entries;
  }

 private:
  size_t find_end() const {
    if (archive_.size() >= kEndBytes) {
      const size_t last = archive_.size() - kEndBytes;
      for (size_t comment = 0; comment <= std::min(last, kMaxComment); ++comment) {
        ByteReader reader(archive_, where_, last - comment);
        if (reader.read<uint32_t>("a signature") != kEndSignature) continue;
        reader.take(16, "the end record");
        if (reader.read<uint16_t>("the comment's length") == comment) return last - comment;
      }
    }
    fail(where_, "truncated: the zip archive has no end record; is the download complete?");
  }

  Directory find_directory() const {
    const size_t end = find_end();
    ByteReader reader(archive_, where_, end + 4);
    const auto disk = reader.read<uint16_t>("disk");
    const auto directory_disk = reader.read<uint16_t>("disk");
    reader.take(2, "entries on this disk");
    Directory directory = {};
    directory.num_entries = reader.read<uint16_t>("entries");
    directory.size = reader.read<uint32_t>("directory size");
    directory.offset = reader.read<uint32_t>("directory offset");
    if (disk != directory_disk || (disk != 0 && disk != kNone16)) fail(where_, "is one part of a split zip archive");
    size_t limit = end;
    if (directory.num_entries == kNone16 || directory.size == kNone32 || directory.offset == kNone32)
      directory = find_directory64(end, limit);
    if (directory.offset > limit || directory.size > limit - directory.offset)
      fail(where_, "the zip directory ({} bytes at {}) lies outside the file", directory.size, directory.offset);
    if (directory.num_entries > directory.size / kEntryBytes)
      fail(where_, "the zip directory claims {} entries in {} bytes", directory.num_entries, directory.size);
    return directory;
  }

  Directory find_directory64(size_t end, size_t& limit) const {
    if (end < kLocator64Bytes) fail(where_, "the zip64 locator is missing");
    ByteReader locator(archive_, where_, end - kLocator64Bytes);
    if (locator.read<uint32_t>("zip64 locator") != kLocator64Signature) fail(where_, "the zip64 locator is missing");
    locator.take(4, "disk");
    const auto offset = locator.read<uint64_t>("zip64 end offset");
    if (offset > end - kLocator64Bytes) fail(where_, "the zip64 end record at {} lies outside the file", offset);
    limit = offset;
    ByteReader reader(archive_, where_, offset);
    if (reader.read<uint32_t>("zip64 end") != kEnd64Signature) fail(where_, "the zip64 end record is missing");
    reader.take(8 + 2 + 2 + 4 + 4 + 8, "zip64 end");
    Directory directory = {};
    directory.num_entries = reader.read<uint64_t>("entries");
    directory.size = reader.read<uint64_t>("directory size");
    directory.offset = reader.read<uint64_t>("directory offset");
    return directory;
  }

  std::vector<Record> read_directory(const Directory& directory) const {
    ByteReader reader(archive_.first(directory.offset + directory.size), where_, directory.offset);
    std::vector<Record> records;
    records.reserve(directory.num_entries);
    std::unordered_set<std::string_view> names;
    for (uint64_t i = 0; i < directory.num_entries; ++i) {
      const Record& record = records.emplace_back(read_record(reader));
      if (!names.insert(record.name).second) fail(where_, "the zip entry '{}' is there twice", printable(record.name));
      if (record.flags & kFlagEncrypted) fail(where_, "the zip entry '{}' is encrypted", printable(record.name));
      if (record.method != 0 || record.compressed != record.size)
        fail(where_, "the zip entry '{}' is compressed, which torch.save never does; refused", printable(record.name));
    }
    return records;
  }

  Record read_record(ByteReader& reader) const {
    if (reader.read<uint32_t>("a directory entry") != kEntrySignature) fail(where_, "the zip directory is damaged");
    reader.take(4, "versions");
    Record record = {};
    record.flags = reader.read<uint16_t>("flags");
    record.method = reader.read<uint16_t>("method");
    reader.take(4 + 4, "time and CRC");
    record.compressed = reader.read<uint32_t>("compressed size");
    record.size = reader.read<uint32_t>("size");
    const auto name_bytes = reader.read<uint16_t>("name length");
    const auto extra_bytes = reader.read<uint16_t>("extra length");
    const auto comment_bytes = reader.read<uint16_t>("comment length");
    reader.take(2 + 2 + 4, "attributes");
    record.local_offset = reader.read<uint32_t>("local offset");
    record.name = reader.text(name_bytes, "an entry's name");
    read_extra64(reader.take(extra_bytes, "extra fields"), record);
    reader.take(comment_bytes, "a comment");
    return record;
  }

  // The zip64 field holds, in this order, only those values that the 32-bit ones leave out.
  void read_extra64(std::span<const std::byte> extra, Record& record) const {
    ByteReader reader(extra, where_);
    while (reader.remaining() >= 4) {
      const auto id = reader.read<uint16_t>("extra id");
      const auto size = reader.read<uint16_t>("extra size");
      ByteReader field(reader.take(size, "an extra field"), where_);
      if (id != kExtra64) continue;
      for (uint64_t* value : {&record.size, &record.compressed, &record.local_offset})
        if (*value == kNone32) *value = field.read<uint64_t>("a zip64 value");
    }
  }

  void read_local(Record& record, uint64_t limit) const {
    const std::string name = printable(record.name);
    if (record.local_offset > limit) fail(where_, "the zip entry '{}' lies outside the file", name);
    ByteReader reader(archive_.first(limit), where_, record.local_offset);
    if (reader.read<uint32_t>("a local header") != kLocalSignature)
      fail(where_, "the zip entry '{}' has no local header", name);
    reader.take(2, "version");
    const auto flags = reader.read<uint16_t>("flags");
    const auto method = reader.read<uint16_t>("method");
    reader.take(4 + 4, "time and CRC");
    Record local = {};
    local.compressed = reader.read<uint32_t>("compressed size");
    local.size = reader.read<uint32_t>("size");
    const auto name_bytes = reader.read<uint16_t>("name length");
    const auto extra_bytes = reader.read<uint16_t>("extra length");
    local.name = reader.text(name_bytes, "an entry's name");
    read_extra64(reader.take(extra_bytes, "extra fields"), local);
    const bool sizes_follow = (flags & kFlagSizesFollow) && local.size == 0 && local.compressed == 0;
    const bool same_size = local.size == record.size && local.compressed == record.compressed;
    if (local.name != record.name || method != record.method || !(sizes_follow || same_size))
      fail(where_, "the two zip headers of '{}' disagree", name);
    record.data_begin = reader.position();
    if (record.size > limit - record.data_begin)
      fail(where_, "truncated: the zip entry '{}' needs {} bytes, {} are left; is the download complete?", name,
           record.size, limit - record.data_begin);
  }

  void refuse_overlaps(const std::vector<Record>& records) const {
    std::vector<const Record*> order;
    order.reserve(records.size());
    for (const Record& record : records) order.push_back(&record);
    std::ranges::sort(order, {}, &Record::local_offset);
    for (size_t i = 1; i < order.size(); ++i)
      if (order[i]->local_offset < order[i - 1]->data_begin + order[i - 1]->size)
        fail(where_, "the zip entries '{}' and '{}' overlap", printable(order[i - 1]->name), printable(order[i]->name));
  }

  std::span<const std::byte> archive_;
  std::string where_;
};

}  // namespace

std::vector<ZipEntry> read_stored_zip(std::span<const std::byte> archive, std::string_view where) {
  return ZipReader(archive, where).read();
}

}  // namespace puna::io
