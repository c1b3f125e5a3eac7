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
target_compile_options(puna_options INTERFACE -Wall -Wextra)
target_include_directories(puna_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Sanitizers make this compiler see uninitialised values that are none, so that warnings fail the plain builds alone.
  if(NOT PUNA_SANITIZE)
    target_compile_options(puna_options INTERFACE -Werror)
  endif()
  target_compile_options(puna_options INTERFACE -fpch-preprocess)  # ccache needs it with precompiled headers
endif()

set(puna_sanitizers ${PUNA_SANITIZE})
if(PUNA_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "PUNA_FUZZ needs clang with libFuzzer: cmake --preset fuzz, or ./puna fuzz")
  endif()
  set(puna_sanitizers fuzzer-no-link,address,undefined)
endif()
if(puna_sanitizers)
  target_compile_options(puna_options INTERFACE -fsanitize=${puna_sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_compile_definitions(puna_options INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(puna_options INTERFACE -fsanitize=${puna_sanitizers})
endif()

# Missing libraries are collected and named together, as the Debian packages that bring them.
set(puna_missing_packages)
macro(puna_find_package name debian)
  find_package(${name} QUIET)
  if(NOT ${name}_FOUND)
    list(APPEND puna_missing_packages ${debian})
  endif()
endmacro()
macro(puna_find_library prefix debian)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${ARGN})
  endif()
  if(NOT ${prefix}_FOUND)
    list(APPEND puna_missing_packages ${debian})
  endif()
endmacro()

find_package(Threads REQUIRED)
puna_find_package(PkgConfig pkgconf)
puna_find_package(nlohmann_json nlohmann-json3-dev)
puna_find_package(fmt libfmt-dev)
puna_find_package(spdlog libspdlog-dev)
puna_find_library(PCRE2 libpcre2-dev libpcre2-8)
puna_find_library(PNG libpng-dev libpng)
puna_find_library(JPEG libjpeg62-turbo-dev libjpeg)
puna_find_library(WEBP libwebp-dev libwebp libwebpdemux)
puna_find_library(ZLIB zlib1g-dev zlib)
puna_find_library(TOMLPP libtomlplusplus-dev tomlplusplus)
puna_find_library(XXHASH libxxhash-dev libxxhash)
puna_find_library(CAIRO libcairo2-dev cairo)
puna_find_library(URING liburing-dev liburing)
puna_find_package(Boost libboost1.81-dev)
puna_find_library(OPENSSL libssl-dev openssl)
puna_find_library(PROMETHEUS prometheus-cpp-dev prometheus-cpp-core)
if(PUNA_TORCH)
  puna_find_package(CLI11 libcli11-dev)
  puna_find_library(EDIT libedit-dev libedit)
endif()
if(PUNA_TESTS)
  puna_find_package(GTest libgtest-dev)
  puna_find_library(GMOCK libgmock-dev gmock)
endif()
if(puna_missing_packages)
  list(JOIN puna_missing_packages " " packages)
  message(FATAL_ERROR "Debian packages are missing: ${packages}; ./puna installs them, or: sudo apt-get install ${packages}")
endif()

# Third-party libraries that a folder uses beyond fmt, spdlog and nlohmann-json.
set(PUNA_LIBS_io PkgConfig::URING PkgConfig::PNG PkgConfig::JPEG PkgConfig::WEBP PkgConfig::XXHASH)
set(PUNA_LIBS_http Boost::headers PkgConfig::OPENSSL)
set(PUNA_LIBS_server PkgConfig::PROMETHEUS)
set(PUNA_LIBS_synth PkgConfig::CAIRO)
set(PUNA_LIBS_plot PkgConfig::CAIRO)
set(PUNA_LIBS_train PkgConfig::TOMLPP)
set(PUNA_LIBS_quant PkgConfig::TOMLPP)
set(PUNA_LIBS_checkpoint PkgConfig::PCRE2)
set(PUNA_LIBS_cli PkgConfig::EDIT)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  # One source for each instruction set; the program chooses when it starts.
  set_source_files_properties(src/kernels/training/kernels_avx2.cc PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
  set_source_files_properties(src/kernels/training/kernels_avx512.cc PROPERTIES COMPILE_OPTIONS
                              "-mavx512f;-mavx512dq;-mavx512bw;-mavx512vl;-mfma;-mprefer-vector-width=512")
  # All give the same bits: no product and sum is joined but where the source says so. GCC 12 takes its own
  # AVX-512 intrinsics to use uninitialised values.
  set_source_files_properties(src/kernels/quantized/tile_avx2.cc PROPERTIES COMPILE_OPTIONS
                              "-mavx2;-mfma;-ffp-contract=off")
  set_source_files_properties(src/kernels/quantized/tile_avx512_vnni.cc PROPERTIES COMPILE_OPTIONS
                              "-mavx512f;-mavx512dq;-mavx512bw;-mavx512vl;-mavx512vnni;-ffp-contract=off;-Wno-maybe-uninitialized")
  set_source_files_properties(src/kernels/quantized/float_tile_avx2.cc PROPERTIES COMPILE_OPTIONS
                              "-mavx2;-mfma;-ffp-contract=off")
  set_source_files_properties(src/kernels/quantized/float_tile_avx512_bf16.cc PROPERTIES COMPILE_OPTIONS
                              "-mavx512f;-mavx512bw;-mavx512vbmi;-mavx512bf16;-ffp-contract=off;-Wno-maybe-uninitialized")
  set_source_files_properties(src/kernels/attention/split_avx2.cc PROPERTIES COMPILE_OPTIONS
                              "-mavx2;-mfma;-ffp-contract=off")
  set(puna_avx512 "-mavx512f;-mavx512dq;-mavx512bw;-mavx512vl;-mavx512vnni;-mfma;-ffp-contract=off;-Wno-maybe-uninitialized;-Wno-uninitialized")
  set_source_files_properties(src/kernels/attention/split_avx512.cc PROPERTIES COMPILE_OPTIONS "${puna_avx512}")
  set_source_files_properties(src/kernels/attention/split_avx512_bf16.cc PROPERTIES COMPILE_OPTIONS
                              "${puna_avx512};-mavx512bf16")
endif()
set_source_files_properties(src/engine/filters.cc src/kernels/quantized/tile_reference.cc
                            src/kernels/quantized/float_tile_reference.cc src/kernels/quantized/matmul.cc PROPERTIES
                            COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(src/cli/run.cc PROPERTIES COMPILE_DEFINITIONS PUNA_VERSION="${PROJECT_VERSION}")
set_source_files_properties(src/cli/options.cc PROPERTIES COMPILE_DEFINITIONS PUNA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
