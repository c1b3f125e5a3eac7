#include "server/page.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace puna::server {
namespace {

// Nothing from elsewhere, no script or style but the files of the page, and no text becomes HTML unless DOMPurify
// made it.
constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify";

const PageFile* find_file(std::string_view path) {
  const auto files = page_files();
  const auto at = std::find_if(files.begin(), files.end(), [&](const PageFile& file) { return file.path == path; });
  return at == files.end() ? nullptr : &*at;
}

std::string unzipped(std::string_view bytes) {
  z_stream stream{};
  PUNA_CHECK(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK, "zlib does not start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string result;
  std::array<char, 65536> buffer;
  int state = Z_OK;
  while (state == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = buffer.size();
    state = inflate(&stream, Z_NO_FLUSH);
    result.append(buffer.data(), buffer.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  PUNA_CHECK(state == Z_STREAM_END, "a file of the page is damaged: {}", state);
  return result;
}

bool takes_gzip(const http::Request& request) {
  const std::string_view accepted = request.header("accept-encoding");
  const size_t at = accepted.find("gzip");
  return at != std::string_view::npos && !accepted.substr(at + 4).starts_with(";q=0");
}

}  // namespace

bool is_of_page(std::string_view path) { return find_file(path) != nullptr; }

bool reply_page(const http::Request& request, http::Exchange& exchange) {
  const PageFile* file = find_file(request.path);
  if (!file || (request.method != "GET" && request.method != "HEAD")) return false;
  const bool zipped = file->gzipped && takes_gzip(request);
  const std::string tag = fmt::format("\"{}{}\"", file->hash, zipped ? "-gzip" : "");
  http::Reply reply;
  reply.content_type = file->type;
  reply.headers = {{"ETag", tag},
                   {"Cache-Control", "no-cache"},
                   {"Vary", "Accept-Encoding"},
                   {"Content-Security-Policy", std::string(kPolicy)},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Referrer-Policy", "no-referrer"},
                   {"Cross-Origin-Opener-Policy", "same-origin"},
                   {"Cross-Origin-Resource-Policy", "same-origin"}};
  if (request.header("if-none-match").find(tag) != std::string_view::npos) {
    reply.status = 304;
    reply.content_type.clear();
  } else if (zipped) {
    reply.headers.emplace_back("Content-Encoding", "gzip");
    reply.body = file->bytes;
  } else {
    reply.body = file->gzipped ? unzipped(file->bytes) : std::string(file->bytes);
  }
  exchange.reply(std::move(reply));
  return true;
}

}  // namespace puna::server
