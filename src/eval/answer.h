// Grading text: normalisation, facts within an answer, the last number of an answer.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace puna::eval {

/// ASCII letters in lower case; every run of white space one space; white space and any of . , ; : ! ? " ' ` * removed
/// at both ends.
std::string normalise(std::string_view text);

/// Without the white space at both ends.
std::string_view trim(std::string_view text);

/// Whether `fact` occurs in `text` as words of its own: no ASCII letter or digit of the text continues it on either
/// side ("red" is not in "bored", nor "3" in "13"). The characters are compared as they are. An empty fact is nowhere.
bool contains_words(std::string_view text, std::string_view fact);

/// The last number of a text: an optional sign, digits (in groups of three after commas, or plain), a fraction and an
/// exponent. U+2212 is a minus; a minus directly after a letter or digit is none ("3-5" ends in 5), and digits directly
/// after a letter or '_' are no number ("H2O"). nullopt when there is none.
std::optional<double> last_number(std::string_view text);

}  // namespace puna::eval
