# Writes build_info.h; leaves it untouched when nothing changed, so that nothing is rebuilt for it.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
execute_process(COMMAND git -C ${SOURCE} status --porcelain --untracked-files=no OUTPUT_VARIABLE changes ERROR_QUIET)
if(NOT commit)
  set(commit "unknown")
endif()
set(dirty false)
if(changes)
  set(dirty true)
endif()
set(cuda false)
if(NVCC AND NOT NVCC MATCHES "NOTFOUND")
  set(cuda true)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT [[
#pragma once
namespace rat::build_info {
inline constexpr const char* version = "@VERSION@";
inline constexpr const char* commit = "@commit@";
inline constexpr bool dirty = @dirty@;
inline constexpr const char* build_type = "@BUILD_TYPE@";
inline constexpr const char* sanitizers = "@SANITIZE@";
inline constexpr const char* compiler = "@COMPILER@";
inline constexpr const char* source_dir = "@SOURCE@";
inline constexpr bool cuda_toolkit_found = @cuda@;
}  // namespace rat::build_info
]] @ONLY)
