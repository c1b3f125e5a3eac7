"""Writes src/text/unicode_class_ranges.inc: the character classes of Llama 4's split pattern, code point by code point.

    python tools/make_unicode_classes.py > src/text/unicode_class_ranges.inc

The classes are asked of the regex engine inside the tiktoken library, so that its Unicode version is ours too: with a
vocabulary of single bytes, encode() yields nothing for a character that the pattern does not match.
"""
import tiktoken

# In the order of puna::text::CharClass; index 0 (other) is what no pattern matches.
PATTERNS = [None, r"[\p{Lu}\p{Lt}]", r"\p{Ll}", r"[\p{Lm}\p{Lo}]", r"\p{M}", r"\p{N}", r"[^\S\r\n]", r"[\r\n]"]
BYTES = {bytes([b]): b for b in range(256)}


def main():
    classes = bytearray(0x110000)
    for index, pattern in enumerate(PATTERNS):
        if pattern is None:
            continue
        engine = tiktoken.Encoding(name=f"class{index}", pat_str=pattern, mergeable_ranks=BYTES, special_tokens={})
        for code in range(0x110000):
            if 0xD800 <= code < 0xE000:
                continue
            if engine.encode_ordinary(chr(code)):
                assert classes[code] == 0, f"U+{code:04X} is in two classes"
                classes[code] = index
    starts = [c for c in range(0x110000) if c == 0 or classes[c] != classes[c - 1]]
    print(f"// Made by tools/make_unicode_classes.py with tiktoken {tiktoken.__version__}: first code point * 8 + class.")
    words = [f"0x{start * 8 + classes[start]:x}," for start in starts]
    line = ""
    for word in words:
        if len(line) + len(word) > 118:
            print(line.rstrip())
            line = ""
        line += word + " "
    print(line.rstrip())


main()
