# Language, warnings, sanitizers and third-party libraries, for every target alike.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(PUNA_CCACHE ccache)
if(PUNA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${PUNA_CCACHE})
endif()

add_library(puna_options INTERFACE)
target_compile_options(puna_options INTERFACE -Wall -Wextra -Werror -fpch-preprocess)
target_include_directories(puna_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(PUNA_SANITIZE)
  target_compile_options(puna_options INTERFACE -fsanitize=${PUNA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(puna_options INTERFACE -fsanitize=${PUNA_SANITIZE})
endif()

find_package(Threads REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)

# Third-party libraries that a folder uses beyond fmt, spdlog and nlohmann-json.
set(PUNA_LIBS_io PkgConfig::PNG PkgConfig::JPEG PkgConfig::WEBP PkgConfig::ZLIB)
set(PUNA_LIBS_text PkgConfig::PCRE2)
