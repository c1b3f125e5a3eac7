// TensorBoard event files: TFRecord framing with masked CRC32C around hand-encoded Event protobufs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace puna::train {

class EventFile {
 public:
  /// Appends a new file events.out.tfevents.<time>.puna.<n> in `dir`.
  explicit EventFile(const std::filesystem::path& dir);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void scalar(std::string_view tag, int64_t step, double value);
  void flush();

 private:
  void write_record(std::string_view bytes);
  int fd_ = -1;
  std::filesystem::path path_;
};

}  // namespace puna::train
