#include "io/base64.h"

#include <gtest/gtest.h>

namespace puna::io {
namespace {

TEST(Base64, TheExamplesOfTheStandard) {
  EXPECT_EQ(decode_base64("Zg=="), "f");
  EXPECT_EQ(decode_base64("Zm8="), "fo");
  EXPECT_EQ(decode_base64("Zm9v"), "foo");
  EXPECT_EQ(decode_base64("Zm9vYmFy"), "foobar");
  EXPECT_EQ(decode_base64("+/+/"), "\xFB\xFF\xBF");
  EXPECT_EQ(encode_base64(""), "");
  for (const char* text : {"Zg==", "Zm8=", "Zm9v", "Zm9vYmFy", "+/+/"})
    EXPECT_EQ(encode_base64(*decode_base64(text)), text);
}

TEST(Base64, RefusesWhatIsNotExactlyThat) {
  for (const char* text : {"", "Zg", "Zg=", "Zh==", "Z===", "Zm9v\n", "Zm 9", "Zm9_", "=Zm9", "Zg==Zg=="})
    EXPECT_FALSE(decode_base64(text).has_value()) << text;
}

}  // namespace
}  // namespace puna::io
