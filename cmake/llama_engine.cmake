# Adds the prepared llama.cpp tree (NEXTN_LLAMA_DIR) to the build.
#
# Sets NEXTN_BACKENDS, NEXTN_LIBRARIES and NEXTN_PROGRAMS: the targets of the engine that nextn ships.

include(cmake/cpu_variants.cmake)

# The tree is reached through a link inside the build directory: its path relative to the build is then the same in every
# clone and for every stamp, which is what lets the compiler cache hit.
set(engine_source ${NEXTN_LLAMA_DIR})
set(engine_binary ${CMAKE_BINARY_DIR}/engine)
if (UNIX)
    set(engine_source ${CMAKE_BINARY_DIR}/llama.cpp)
    file(REAL_PATH ${NEXTN_LLAMA_DIR} tree)
    if (IS_SYMLINK ${engine_source})
        file(READ_SYMLINK ${engine_source} linked_tree)
        if (NOT linked_tree STREQUAL tree)
            # Another tree under the same path: file times say nothing about what is out of date.
            file(REMOVE_RECURSE ${engine_binary})
        endif ()
    endif ()
    file(CREATE_LINK ${tree} ${engine_source} SYMBOLIC)
endif ()

# Shown by llama-server --version. Upstream would take the number of commits and the head of the tree's repository, which
# differ each time the tree is prepared.
set(LLAMA_BUILD_NUMBER 0)
set(LLAMA_BUILD_COMMIT "nextn-${PROJECT_VERSION}")

add_subdirectory(${engine_source} ${engine_binary} EXCLUDE_FROM_ALL SYSTEM)

# Upstream compiles the models many to a file; naming them by relative paths lets the compiler cache hit here too.
set_target_properties(llama PROPERTIES UNITY_BUILD_RELOCATABLE ON)

if (GGML_BACKEND_DL)
    # As in a build with linked backends: no effect here, but sources compile to the same text, and the compiler cache
    # serves one kind of build from the other.
    target_compile_definitions(ggml INTERFACE GGML_BACKEND_SHARED)
endif ()

nextn_tune_native_cpu()
nextn_select_backends(NEXTN_BACKENDS)

set(NEXTN_PROGRAMS ${NEXTN_TOOLS})
if (NOT NEXTN_PROGRAMS)
    set(NEXTN_PROGRAMS llama-server llama-cli)
    if (NEXTN_RPC)
        list(APPEND NEXTN_PROGRAMS ggml-rpc-server)
    endif ()
    if (NOT NEXTN_PORTABLE)
        list(APPEND NEXTN_PROGRAMS llama-bench llama-quantize)
    endif ()
endif ()

set(NEXTN_LIBRARIES ggml-base ggml llama llama-common)
foreach (program IN LISTS NEXTN_PROGRAMS)
    if (TARGET ${program}-impl)
        list(APPEND NEXTN_LIBRARIES ${program}-impl)
    endif ()
endforeach ()
if (llama-server IN_LIST NEXTN_PROGRAMS)
    list(APPEND NEXTN_LIBRARIES mtmd)
endif ()

add_custom_target(nextn-runtime ALL)
add_dependencies(nextn-runtime ${NEXTN_LIBRARIES} ${NEXTN_BACKENDS} ${NEXTN_PROGRAMS})
