// The page for browsers: files that are part of the program (src/server/page, and libraries of Debian's packages).
#pragma once

#include <span>
#include <string_view>

#include "http/exchange.h"

namespace puna::server {

struct PageFile {
  std::string_view path;   // "/", "/page/chat.js"
  std::string_view type;   // Content-Type
  std::string_view hash;   // of the file's bytes
  std::string_view bytes;  // as they are sent
  bool gzipped;
};

/// Made by tools/embed_page.py.
std::span<const PageFile> page_files();

bool is_of_page(std::string_view path);

/// Answers GET and HEAD of a file of the page; false: there is none of this path.
bool reply_page(const http::Request& request, http::Exchange& exchange);

}  // namespace puna::server
