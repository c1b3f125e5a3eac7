#include "train/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "io/text.h"
#include "io/write_failure.h"

namespace puna::train {
namespace fs = std::filesystem;
namespace {

constexpr size_t kBufferedBytes = 1 << 16;
constexpr uint32_t kCastagnoli = 0x82F63B78;  // reflected

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kCastagnoli : 0);
    table[i] = crc;
  }
  return table;
}();

/// TFRecord's masking, so that a CRC of data that holds CRCs stays a good one.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

template <typename Number>
void put_little_endian(std::string& out, Number number) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof(number)];
  std::memcpy(bytes, &number, sizeof(number));
  out.append(bytes, sizeof(number));
}

// Protobuf's wire format: a key is (field number << 3 | wire type).
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t number) {
  for (; number >= 0x80; number >>= 7) out += static_cast<char>(number | 0x80);
  out += static_cast<char>(number);
}

void put_key(std::string& out, uint32_t field, WireType type) { put_varint(out, field << 3 | type); }

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

/// The Event message's wall_time = 1, seconds.
std::string event_now() {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  put_key(event, 1, kFixed64);
  put_little_endian(event, now.count());
  return event;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const fs::path& dir, int64_t first_step) {
  std::error_code ec;
  fs::create_directories(dir, ec);
  const auto seconds = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  for (int n = 0; fd_.get() < 0; ++n) {
    path_ = dir / fmt::format("events.out.tfevents.{:010}.puna.{}", seconds, n);
    fd_ = io::Descriptor(open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666));
    if (fd_.get() < 0 && errno != EEXIST)
      fail(path_.string(), "cannot be written: {}", std::generic_category().message(errno));
  }
  std::string event = event_now();
  put_bytes(event, 3, "brain.Event:2");  // file_version, the first record of every event file
  write_record(event);
  if (first_step <= 0) return;
  std::string start;  // SessionLog: status = 1, of which 1 is START
  put_key(start, 1, kVarint);
  put_varint(start, 1);
  event = event_now();
  put_key(event, 2, kVarint);
  put_varint(event, static_cast<uint64_t>(first_step));
  put_bytes(event, 7, start);
  write_record(event);
}

EventFile::~EventFile() {
  try {
    flush();
  } catch (const Error&) {
    // Whoever must know has called flush().
  }
}

void EventFile::scalar(std::string_view tag, int64_t step, double value) {
  std::string entry;  // Summary.Value: tag = 1, simple_value = 2
  put_bytes(entry, 1, io::printable(tag));
  put_key(entry, 2, kFixed32);
  put_little_endian(entry, static_cast<float>(value));
  std::string summary;
  put_bytes(summary, 1, entry);
  std::string event = event_now();
  put_key(event, 2, kVarint);
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  write_record(event);
}

void EventFile::write_record(std::string_view bytes) {
  std::string length;
  put_little_endian(length, static_cast<uint64_t>(bytes.size()));
  buffer_ += length;
  put_little_endian(buffer_, masked_crc(length));
  buffer_ += bytes;
  put_little_endian(buffer_, masked_crc(bytes));
  if (buffer_.size() >= kBufferedBytes) flush();
}

void EventFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t wrote = write(fd_.get(), buffer_.data() + done, buffer_.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      const int error = errno;
      buffer_.erase(0, done);
      fail(path_.string(), "cannot be written: {}; then go on with --resume", io::write_failure(error));
    }
    done += static_cast<size_t>(wrote);
  }
  buffer_.clear();
}

}  // namespace puna::train
