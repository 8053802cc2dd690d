# Which CPU kernels are built. Works on upstream's targets from outside, so that no patch is needed.

# x86 variants of the portable build, a choice of those that upstream knows: each costs build time and about 1 MB. Of the
# ones left out, sapphirerapids is upstream's only one with AMX and served by zen4 here; cooperlake and cannonlake are
# served by cascadelake and skylakex; CPUs with AVX but not AVX2 (before 2013) have to do with sse42.
set(NEXTN_CPU_VARIANTS x64 sse42 haswell alderlake skylakex cascadelake icelake zen4
    CACHE STRING "x86 CPU variants of the portable build (upstream's names), or ALL")

# AMX tile kernels take another path for one row than for several, so a token could depend on how many tokens were
# verified with it. Off by default: speculative output must equal plain output.
option(NEXTN_AMX "Use AMX kernels (speculative output may then differ from plain output)" OFF)

string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" processor)
string(REGEX MATCH "^(x86_64|amd64|x86|i.86)$" is_x86 "${processor}")

# Leave a variant out: upstream makes every variant a dependency of ggml, so it stays as a target, but an empty one.
function(nextn_empty_variant target)
    set_target_properties(${target} PROPERTIES SOURCES ${PROJECT_SOURCE_DIR}/cmake/empty.c LINK_LIBRARIES "")
endfunction()

# Set <out> to the backend libraries that are built and installed, after emptying the unwanted CPU variants.
function(nextn_select_backends out)
    set(wanted "")
    foreach (target IN LISTS GGML_AVAILABLE_BACKENDS)
        if (NOT TARGET ${target})
            continue() # left in the cache by an earlier configuration
        endif ()
        set(keep TRUE)
        if (NEXTN_PORTABLE AND is_x86 AND target MATCHES "^ggml-cpu-(.+)$")
            set(variant ${CMAKE_MATCH_1})
            if (NOT "ALL" IN_LIST NEXTN_CPU_VARIANTS AND NOT variant IN_LIST NEXTN_CPU_VARIANTS)
                set(keep FALSE)
            elseif (variant STREQUAL "sapphirerapids" AND NOT NEXTN_AMX)
                set(keep FALSE)
            endif ()
        endif ()
        if (keep)
            list(APPEND wanted ${target})
        else ()
            nextn_empty_variant(${target})
        endif ()
    endforeach ()
    set(${out} ${wanted} PARENT_SCOPE)
endfunction()

# Set <out> to the flags that -march=native stands for on this machine, as GCC tells them.
function(nextn_native_flags out)
    set(${out} "" PARENT_SCOPE)
    if (NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        return()
    endif ()
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=native -E -v -x c++ /dev/null
        OUTPUT_QUIET ERROR_VARIABLE talk RESULT_VARIABLE result)
    if (result EQUAL 0 AND talk MATCHES "\n([^\n]*cc1plus [^\n]*)\n")
        string(REGEX MATCHALL " -m[a-z][a-z0-9._=-]*" flags "${CMAKE_MATCH_1}")
        list(TRANSFORM flags STRIP)
        list(FILTER flags EXCLUDE REGEX "^-mamx")
        set(${out} ${flags} PARENT_SCOPE)
    endif ()
endfunction()

# The native build: spell the CPU out, and switch AMX off. These options come after upstream's -march=native, and the
# last one counts. Spelled out, neither ninja nor the compiler cache takes another CPU's objects for this one's.
function(nextn_tune_native_cpu)
    if (NOT GGML_NATIVE OR NOT is_x86 OR NOT TARGET ggml-cpu OR MSVC)
        return()
    endif ()
    nextn_native_flags(flags)
    include(CheckCXXCompilerFlag)
    check_cxx_compiler_flag(-mno-amx-tile NEXTN_HAVE_NO_AMX)
    if (NOT NEXTN_AMX AND NEXTN_HAVE_NO_AMX)
        list(APPEND flags -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
    endif ()
    target_compile_options(ggml-cpu PRIVATE ${flags})
endfunction()
