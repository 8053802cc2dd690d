# Which CPU kernels are built. Works on upstream's targets from outside, so that no patch is needed.

# x86 variants of the portable build, a choice of those that upstream knows. The ones left out are served by the next
# smaller one at little loss: sandybridge, ivybridge and piledriver by sse42; cannonlake and cascadelake by skylakex;
# cooperlake and sapphirerapids by icelake or zen4. Each variant costs build time and about 1 MB.
set(NEXTN_CPU_VARIANTS x64 sse42 haswell alderlake skylakex icelake zen4
    CACHE STRING "x86 CPU variants of the portable build (upstream's names), or ALL")

# AMX tile kernels take another path for one row than for several, so a token could depend on how many tokens were
# verified with it. Off by default: speculative output must equal plain output.
option(NEXTN_AMX "Use AMX kernels (speculative output may then differ from plain output)" OFF)

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
        if (NEXTN_PORTABLE AND GGML_SYSTEM_ARCH STREQUAL "x86" AND target MATCHES "^ggml-cpu-(.+)$")
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

# Switch AMX off in the native build. Target options come after upstream's -march=native, and the last one counts.
function(nextn_disable_amx)
    if (NEXTN_AMX OR NEXTN_PORTABLE OR NOT TARGET ggml-cpu)
        return()
    endif ()
    include(CheckCXXCompilerFlag)
    check_cxx_compiler_flag(-mno-amx-tile NEXTN_HAVE_NO_AMX)
    if (NEXTN_HAVE_NO_AMX)
        target_compile_options(ggml-cpu PRIVATE -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
    endif ()
endfunction()
