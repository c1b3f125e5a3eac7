"""Packs files into one, and writes the C++ table of them: embed_page.py OUT.cc OUT.bin NAME=FILE...

NAME is the path on the server; "index.html" is "/", all others lie under "/page/". Text is compressed.
"""
import gzip
import hashlib
import sys
from pathlib import Path

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml", ".woff2": "font/woff2"}

TABLE = """// Made by tools/embed_page.py.
#include "server/page.h"

asm(R"(
.pushsection .rodata
.hidden puna_page_bytes
.global puna_page_bytes
puna_page_bytes:
.incbin "{blob}"
.popsection
)");
extern "C" const char puna_page_bytes[];

namespace puna::server {{

std::span<const PageFile> page_files() {{
  static const PageFile kFiles[] = {{
{rows}  }};
  return kFiles;
}}

}}  // namespace puna::server
"""

table, blob = Path(sys.argv[1]), Path(sys.argv[2])
packed, rows = b"", ""
for pair in sys.argv[3:]:
    name, _, file = pair.partition("=")
    plain = Path(file).read_bytes()
    kind = TYPES[Path(name).suffix]
    zipped = gzip.compress(plain, 9, mtime=0)
    smaller = len(zipped) < 0.9 * len(plain)
    stored = zipped if smaller else plain
    path = "/" if name == "index.html" else "/page/" + name
    rows += (f'      {{"{path}", "{kind}", "{hashlib.sha256(plain).hexdigest()[:24]}", '
             f"{{puna_page_bytes + {len(packed)}, {len(stored)}}}, {str(smaller).lower()}}},\n")
    packed += stored
blob.write_bytes(packed)
table.write_text(TABLE.format(blob=blob.as_posix(), rows=rows), encoding="ascii")
