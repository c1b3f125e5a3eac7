#include "server/multipart.h"

#include <gtest/gtest.h>

#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr const char* kType = "multipart/form-data; boundary=xyz";

std::string part(const std::string& header, const std::string& body) {
  return "--xyz\r\n" + header + "\r\n\r\n" + body + "\r\n";
}
std::string named(const std::string& name, const std::string& body) {
  return part("Content-Disposition: form-data; name=\"" + name + "\"; filename=\"f\"\r\nContent-Type: image/png", body);
}

TEST(Multipart, PartsByName) {
  const std::string bytes("\0\r\n--xy\xFF", 8);
  const auto parts = read_multipart(kType, named("a", bytes) + named("b", "") + "--xyz--\r\n");
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts.at("a"), bytes);
  EXPECT_EQ(parts.at("b"), "");
  EXPECT_EQ(read_multipart("multipart/form-data; charset=x; boundary=\"xyz\"", named("a", "1") + "--xyz--").at("a"),
            "1");
  EXPECT_EQ(read_multipart(kType, part("content-DISPOSITION: form-data; name=a", "1") + "--xyz--").at("a"), "1");
  EXPECT_TRUE(read_multipart(kType, "--xyz--").empty());
}

TEST(Multipart, WhatIsNotWholeIsRefused) {
  const std::string good = named("a", "1");
  std::string many;
  for (int i = 0; i < 65; ++i) many += named(std::to_string(i), "");
  for (const std::string& body : {std::string(), std::string("--"), std::string("--xyz"), std::string("--xyz\r\n"),
                                  good, good + "--xyz", good + "--xy--", good + good + "--xyz--",
                                  part("X: y", "1") + "--xyz--", "x" + good + "--xyz--", many + "--xyz--"})
    EXPECT_THROW(read_multipart(kType, body), ApiError) << body.substr(0, 300);
  EXPECT_THROW(read_multipart("multipart/form-data", good + "--xyz--"), ApiError);
  EXPECT_THROW(read_multipart("multipart/form-data; boundary=" + std::string(71, 'x'), good), ApiError);
}

}  // namespace
}  // namespace puna::server
