#include "io/image.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "tests/support/golden.h"

namespace puna {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kOdd = fs::path(PUNA_SOURCE_DIR) / "tests/golden/images_odd";

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

io::Image decode(std::string_view text, const io::ImageLimits& limits = {}, bool apply_exif = true) {
  return io::decode_image({reinterpret_cast<const std::byte*>(text.data()), text.size()}, "test", limits, apply_exif);
}

std::string error_of(std::string_view text, const io::ImageLimits& limits = {}) {
  try {
    decode(text, limits);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// Largest difference in levels; 256 when the sizes differ.
int levels(const io::Image& a, const io::Image& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size()) return 256;
  int most = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(a.rgb[i] - b.rgb[i]));
  return most;
}

std::vector<fs::path> odd_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(kOdd))
    if (!entry.path().string().ends_with(".expected.png")) files.push_back(entry.path());
  return files;
}

std::string big_endian(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}

std::string png_chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(static_cast<uint32_t>(crc));
}

std::string deflated(const std::string& data) {
  uLongf size = compressBound(data.size());
  std::string out(size, '\0');
  compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(data.data()), data.size());
  out.resize(size);
  return out;
}

/// An 8-bit grey PNG of this size; `before` are chunks between header and pixels.
std::string grey_png(uint32_t width, uint32_t height, const std::string& before, const std::string& idat) {
  using namespace std::string_literals;
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", big_endian(width) + big_endian(height) + "\x08\0\0\0\0"s) + before +
         png_chunk("IDAT", idat) + png_chunk("IEND", "");
}

TEST(Image, OddFilesDecodeAsPillowDoes) {
  int files = 0;
  for (const auto& file : odd_files()) {
    const auto expected = decode(read_text(file.string() + ".expected.png"));
    EXPECT_EQ(levels(decode(read_text(file)), expected), 0) << file.filename();
    ++files;
  }
  EXPECT_GE(files, 45);
}

TEST(Image, JpegPixelsOfTheGoldenSet) {
  int files = 0;
  for (const auto& set : test::golden_sets()) {
    for (const auto& entry : fs::directory_iterator(set / "images")) {
      const std::string stem = entry.path().stem().string();
      if (entry.path().extension() != ".jpg") continue;
      const auto expected = decode(read_text(set / "images" / (stem + "_decoded.png")));
      EXPECT_EQ(levels(decode(read_text(entry.path())), expected), 0) << stem;
      ++files;
    }
  }
  EXPECT_GE(files, 4);
}

TEST(Image, ExifOrientationOnlyWhenAsked) {
  const auto turned = decode(read_text(kOdd / "exif6.jpg"));
  const auto stored = decode(read_text(kOdd / "exif6.jpg"), {}, false);
  EXPECT_EQ(std::pair(turned.width, turned.height), std::pair(21, 29));
  EXPECT_EQ(levels(stored, decode(read_text(kOdd / "exif1.jpg"))), 0);
}

TEST(Image, PngRoundTrip) {
  const auto image = decode(read_text(kOdd / "rgb_444.jpg"));
  const auto bytes = io::encode_png(image);
  EXPECT_EQ(levels(io::decode_image(bytes, "round trip"), image), 0);
  EXPECT_THROW(io::encode_png({2, 2, {1, 2, 3}}), InternalError);
}

TEST(Image, CutAnywhereIsAnErrorOrWhole) {
  for (const auto& file : odd_files()) {
    const std::string whole = read_text(file);
    const auto image = decode(whole);
    // Sequential JPEG may lack the end marker, as in Pillow: its pixels are there.
    const size_t spare = file.extension() == ".jpg" ? 8 : 0;
    const size_t step = whole.size() > 1500 ? 7 : 1;
    for (size_t size = 0; size < whole.size(); size += step) {
      const std::string cut = whole.substr(0, size);
      const bool refused = error_of(cut) != "no error";
      EXPECT_TRUE(refused || size + spare >= whole.size()) << file.filename() << " cut at " << size;
      if (!refused) {
        EXPECT_EQ(levels(decode(cut), image), 0) << file.filename() << " cut at " << size;
      }
    }
  }
}

TEST(Image, DamagedBytesNeverCrash) {
  uint32_t random = 1;
  for (const auto& file : odd_files()) {
    const std::string whole = read_text(file);
    for (int i = 0; i < 60; ++i) {
      std::string bad = whole;
      for (int k = 0; k < 3; ++k) {
        random = random * 1664525 + 1013904223;
        bad[(random >> 8) % bad.size()] = static_cast<char>(random >> 3);
      }
      const std::string error = error_of(bad, {.max_pixels = 1'000'000});
      EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    }
  }
}

TEST(Image, LimitsComeBeforeDecoding) {
  for (const char* name : {"lossy.webp", "rgb_444.jpg", "palette.png"}) {
    const std::string file = read_text(kOdd / name);
    EXPECT_EQ(error_of(file), "no error");
    EXPECT_THAT(error_of(file, {.max_bytes = 100}), HasSubstr("more than 100 B"));
    EXPECT_THAT(error_of(file, {.max_pixels = 29 * 21 - 1}), HasSubstr("29 x 21 pixels, more than 608 in all"));
    EXPECT_EQ(error_of(file, {.max_pixels = 29 * 21, .max_side = 29}), "no error");
    EXPECT_NE(error_of(file, {.max_side = 28}), "no error");
  }
}

TEST(Image, OtherFormatsAreNamed) {
  EXPECT_THAT(error_of(""), HasSubstr("0 bytes"));
  EXPECT_THAT(error_of("GIF89a..."), HasSubstr("is a GIF file, which is not supported"));
  EXPECT_THAT(error_of(std::string("\0\0\0\x20"
                                   "ftypheic",
                                   12)),
              HasSubstr("HEIC"));
  EXPECT_THAT(error_of("hello"), HasSubstr("not a JPEG, PNG or WebP image (5 bytes)"));
}

TEST(Image, HugeSizesInTinyFilesAllocateNothing) {
  const std::string bytes = deflated(std::string(1000, '\0'));
  EXPECT_THAT(error_of(grey_png(9000, 9000, "", bytes)), HasSubstr("truncated"));
  EXPECT_THAT(error_of(grey_png(65000, 65000, "", bytes)), HasSubstr("more than 100000000 in all"));
  EXPECT_NE(error_of(grey_png(0x7fffffff, 0x7fffffff, "", bytes)), "no error");
  EXPECT_NE(error_of(grey_png(0, 5, "", bytes)), "no error");
  std::string jpeg = read_text(kOdd / "grey.jpg");
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\x20\xff\x20\xff");
  EXPECT_THAT(error_of(jpeg), HasSubstr("truncated"));
}

TEST(Image, CompressedTextAndProfilesAreNotUnpacked) {
  const std::string bomb = deflated(std::string(50 << 20, 'a'));
  const std::string zero(1, '\0');
  const std::string chunks = png_chunk("iCCP", "p" + zero + zero + bomb) + png_chunk("zTXt", "k" + zero + zero + bomb);
  EXPECT_EQ(error_of(grey_png(2, 1, chunks, deflated(zero + "\x01\x02"))), "no error");
}

TEST(Image, ChunksLongerThanTheFileAreRefused) {
  std::string exif = png_chunk("eXIf", "MM");
  exif.replace(0, 4, big_endian(800'000'000));
  EXPECT_THAT(error_of(grey_png(2, 1, exif, "")), HasSubstr("a chunk at 33 has 800000000 bytes"));
}

TEST(Image, ThousandsOfScansAreRefused) {
  const std::string file = read_text(kOdd / "progressive.jpg");
  const size_t scan = file.find("\xff\xda");  // of first DC bits: it may be repeated without harm
  const size_t next = file.find("\xff\xc4", scan);
  ASSERT_NE(next, std::string::npos);
  const auto repeated = [&](int times) {
    std::string scans;
    for (int i = 0; i < times; ++i) scans += file.substr(scan, next - scan);
    return file.substr(0, scan) + scans + file.substr(next);
  };
  EXPECT_EQ(levels(decode(repeated(20)), decode(file)), 0);
  EXPECT_THAT(error_of(repeated(2000)), HasSubstr("more than 100 scans"));
}

}  // namespace
}  // namespace puna
