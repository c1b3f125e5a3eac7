# The page that the server shows, as a part of the program: its own files, and libraries from Debian's packages.
file(GLOB page_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/server/page/*)
set(page_files)
set(page_inputs ${page_sources})
foreach(file IN LISTS page_sources)
  cmake_path(GET file FILENAME name)
  list(APPEND page_files ${name}=${file})
endforeach()

function(puna_page_library name file)
  set(page_files ${page_files} lib/${name}=${file} PARENT_SCOPE)
  set(page_inputs ${page_inputs} ${file} PARENT_SCOPE)
endfunction()
puna_page_library(marked.js ${PUNA_MARKED})
puna_page_library(purify.js ${PUNA_DOMPURIFY})
puna_page_library(highlight.js ${PUNA_HIGHLIGHT})
puna_page_library(katex.js ${PUNA_KATEX}/katex.min.js)
puna_page_library(katex.css ${PUNA_KATEX}/katex.min.css)
file(GLOB fonts ${PUNA_KATEX}/fonts/KaTeX_*.woff2)
foreach(font IN LISTS fonts)
  cmake_path(GET font FILENAME name)
  puna_page_library(fonts/${name} ${font})
endforeach()

set(table ${CMAKE_BINARY_DIR}/page/page_files.cc)
set(blob ${CMAKE_BINARY_DIR}/page/page_files.bin)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/page)
find_program(PUNA_PYTHON python3 REQUIRED)
add_custom_command(
  OUTPUT ${table} ${blob}
  COMMAND ${PUNA_PYTHON} ${CMAKE_SOURCE_DIR}/tools/embed_page.py ${table} ${blob} ${page_files}
  DEPENDS ${CMAKE_SOURCE_DIR}/tools/embed_page.py ${page_inputs}
  VERBATIM)
set_source_files_properties(${table} PROPERTIES OBJECT_DEPENDS ${blob} SKIP_PRECOMPILE_HEADERS ON)
target_sources(puna_server PRIVATE ${table})
