# The native part of the package, below the wheel's root:
#
#   nextn/_core.*.so    the extension module
#   nextn/lib/          shared libraries
#   nextn/bin/          programs; in the portable build also the CPU backends, which the engine looks for beside the
#                       running program (as upstream installs them)
#   nextn/licenses/     the engine's licence texts, taken from its tree
#
# Run-time paths are relative to the file that has them, so the tree can be moved.

set(lib_dir nextn/lib)
set(bin_dir nextn/bin)

if (APPLE)
    set(origin "@loader_path")
else ()
    set(origin "$ORIGIN")
endif ()

if (TARGET _core)
    set_target_properties(_core PROPERTIES INSTALL_RPATH "${origin}/lib")
    install(TARGETS _core LIBRARY DESTINATION nextn)
endif ()
set_target_properties(${NEXTN_LIBRARIES} PROPERTIES INSTALL_RPATH "${origin}" EXCLUDE_FROM_ALL FALSE)
set_target_properties(${NEXTN_PROGRAMS} PROPERTIES INSTALL_RPATH "${origin}/../lib" EXCLUDE_FROM_ALL FALSE)

# A wheel cannot hold symbolic links: a library with a version in its name would be stored three times.
set_property(TARGET ${NEXTN_LIBRARIES} ${NEXTN_BACKENDS} PROPERTY VERSION)
set_property(TARGET ${NEXTN_LIBRARIES} ${NEXTN_BACKENDS} PROPERTY SOVERSION)
# Headers are upstream's lists for its own install rules.
set_property(TARGET ${NEXTN_LIBRARIES} PROPERTY PUBLIC_HEADER)
set_property(TARGET ${NEXTN_LIBRARIES} PROPERTY PRIVATE_HEADER)

install(TARGETS ${NEXTN_LIBRARIES}
    LIBRARY DESTINATION ${lib_dir} NAMELINK_SKIP
    RUNTIME DESTINATION ${bin_dir}
    ARCHIVE DESTINATION ${lib_dir})
install(TARGETS ${NEXTN_PROGRAMS} RUNTIME DESTINATION ${bin_dir})

if (GGML_BACKEND_DL)
    set_target_properties(${NEXTN_BACKENDS} PROPERTIES INSTALL_RPATH "${origin};${origin}/../lib" EXCLUDE_FROM_ALL FALSE)
    install(TARGETS ${NEXTN_BACKENDS} LIBRARY DESTINATION ${bin_dir})
else ()
    set_target_properties(${NEXTN_BACKENDS} PROPERTIES INSTALL_RPATH "${origin}" EXCLUDE_FROM_ALL FALSE)
    install(TARGETS ${NEXTN_BACKENDS} LIBRARY DESTINATION ${lib_dir} RUNTIME DESTINATION ${bin_dir})
endif ()

# Upstream's licence and those of the code it bundles go with the binaries made from it.
install(FILES ${NEXTN_LLAMA_DIR}/LICENSE DESTINATION nextn/licenses RENAME LICENSE-llama.cpp)
file(GLOB_RECURSE bundled_licenses ${NEXTN_LLAMA_DIR}/vendor/LICENSE* ${NEXTN_LLAMA_DIR}/licenses/LICENSE*)
foreach (text IN LISTS bundled_licenses)
    cmake_path(GET text PARENT_PATH part)
    cmake_path(GET part FILENAME part)
    cmake_path(GET text FILENAME name)
    if (NOT name MATCHES "-") # licenses/LICENSE-<part> says the part itself
        set(name LICENSE-${part})
    endif ()
    install(FILES ${text} DESTINATION nextn/licenses RENAME ${name})
endforeach ()
