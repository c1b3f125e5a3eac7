// The notation of grammars: rules, alternatives, repetitions, character classes.
#pragma once

#include <string_view>

#include "grammar/source.h"

namespace puna::grammar {

/// A grammar text: `name ::= alternatives`, the rule `root` first of all to match. Literals "..." and classes [a-z] or
/// [^a-z] with the escapes \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH; `.` is any character; groups ( );
/// repetitions * + ? {m} {m,} {m,n}; # begins a comment. Throws Error with the line for anything else.
Source read_gbnf(std::string_view text, std::string_view where);

}  // namespace puna::grammar
