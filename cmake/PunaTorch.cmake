# LibTorch as one imported target, from the first that is given of: PUNA_TORCH_ROOT (its folder, with include/ and lib/),
# Torch_DIR (<libtorch>/share/cmake/Torch, as a variable or in the environment), the wheel in .venv.
# Its own TorchConfig.cmake is not used: with a CUDA wheel it demands a CUDA toolkit that running does not need.
if(NOT Torch_DIR AND DEFINED ENV{Torch_DIR})
  set(Torch_DIR $ENV{Torch_DIR})
endif()
if(PUNA_TORCH_ROOT)
  set(torch_root ${PUNA_TORCH_ROOT})
elseif(Torch_DIR)
  cmake_path(ABSOLUTE_PATH Torch_DIR NORMALIZE OUTPUT_VARIABLE torch_root)
  cmake_path(APPEND torch_root ../../.. OUTPUT_VARIABLE torch_root)
  cmake_path(NORMAL_PATH torch_root)
else()
  file(GLOB torch_root ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
endif()
foreach(file include/ATen/ATen.h lib/libtorch_cpu.so lib/libc10.so)
  if(NOT EXISTS "${torch_root}/${file}")
    message(FATAL_ERROR "LibTorch: there is no '${torch_root}/${file}'; run ./puna once, or set Torch_DIR to <libtorch>/share/cmake/Torch")
  endif()
endforeach()

# The wheel brings headers of another fmt than the one we link; a folder searched earlier makes ours the one that is found.
find_path(PUNA_FMT_INCLUDE fmt/format.h REQUIRED)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/system_headers)
file(CREATE_LINK ${PUNA_FMT_INCLUDE}/fmt ${CMAKE_BINARY_DIR}/system_headers/fmt SYMBOLIC)

add_library(puna_torch INTERFACE)
target_include_directories(puna_torch SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/system_headers ${torch_root}/include
                                                       ${torch_root}/include/torch/csrc/api/include)
target_link_libraries(puna_torch INTERFACE ${torch_root}/lib/libtorch_cpu.so ${torch_root}/lib/libc10.so)
# at::parallel_for is a plain loop in code that is compiled without OpenMP. The library must be LibTorch's own: one pool of
# threads for its work and ours.
file(GLOB torch_openmp ${torch_root}/lib/libgomp*.so*)
if(torch_openmp)
  target_compile_options(puna_torch INTERFACE -fopenmp)
  target_link_libraries(puna_torch INTERFACE ${torch_openmp})
else()
  find_package(OpenMP REQUIRED)
  target_link_libraries(puna_torch INTERFACE OpenMP::OpenMP_CXX)
endif()
if(EXISTS "${torch_root}/lib/libtorch_cuda.so")
  # Nothing of ours names a symbol of these two: loading them is what makes the device known. The CUDA libraries that
  # they need in turn are found at run time by their own paths.
  target_link_libraries(puna_torch INTERFACE -Wl,--no-as-needed ${torch_root}/lib/libtorch_cuda.so
                                             ${torch_root}/lib/libc10_cuda.so -Wl,--as-needed)
  target_link_options(puna_torch INTERFACE -Wl,--allow-shlib-undefined)
endif()

# ATen's headers cost seconds per file; they are compiled once here and reused by every target that includes them.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/torch_pch.cc CONTENT "")
add_library(puna_torch_pch STATIC ${CMAKE_BINARY_DIR}/torch_pch.cc)
target_link_libraries(puna_torch_pch PUBLIC puna_options puna_torch fmt::fmt spdlog::spdlog nlohmann_json::nlohmann_json Threads::Threads)
target_precompile_headers(puna_torch_pch PRIVATE <ATen/ATen.h> <string> <vector>)
