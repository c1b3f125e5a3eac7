// TensorBoard event files: TFRecord framing with masked CRC32C around hand-encoded Event protobufs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "io/descriptor.h"

namespace puna::train {

class EventFile {
 public:
  /// Starts a new file events.out.tfevents.<time>.puna.<n> in `dir`, which is made. Throws Error when it cannot.
  /// From `first_step` on (0: none), TensorBoard then forgets what older files there tell.
  explicit EventFile(const std::filesystem::path& dir, int64_t first_step = 0);
  ~EventFile();  // flushes; errors are lost, so call flush() first
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  /// Stored as a 32-bit float, the type that TensorBoard draws. Of a tag that is not UTF-8, '?' stands for what is not.
  void scalar(std::string_view tag, int64_t step, double value);
  /// Hands what is buffered to the operating system. Throws Error when it cannot be written.
  void flush();

 private:
  void write_record(std::string_view bytes);
  io::Descriptor fd_;
  std::filesystem::path path_;
  std::string buffer_;
};

/// The CRC of iSCSI and TFRecord (RFC 3720): polynomial 0x1EDC6F41, reflected.
uint32_t crc32c(std::string_view bytes);

}  // namespace puna::train
