# Warnings for nextn's own files only; the engine's headers count as system headers.

function(nextn_own_warnings target)
    if (MSVC)
        target_compile_options(${target} PRIVATE /W4 $<$<BOOL:${NEXTN_WERROR}>:/WX>)
    else ()
        target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wcast-qual
            $<$<BOOL:${NEXTN_WERROR}>:-Werror>)
    endif ()
endfunction()

# Files of the overlay are nextn's too, though they compile as part of the engine's targets: with llama.cpp's own set of
# warnings, since they include its private headers.
if (NEXTN_WERROR AND NOT MSVC)
    set(overlay ${PROJECT_SOURCE_DIR}/vendor/llama.cpp/overlay)
    file(GLOB_RECURSE overlay_sources RELATIVE ${overlay} CONFIGURE_DEPENDS ${overlay}/*.cpp ${overlay}/*.c)
    list(TRANSFORM overlay_sources PREPEND ${engine_source}/)
    if (overlay_sources)
        set_source_files_properties(${overlay_sources} TARGET_DIRECTORY llama llama-common ggml ggml-base
            PROPERTIES COMPILE_OPTIONS "-Wall;-Wextra;-Wpedantic;-Wcast-qual;-Wno-unused-function;-Werror")
    endif ()
endif ()
