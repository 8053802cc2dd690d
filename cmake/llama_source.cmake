# Sets NEXTN_LLAMA_DIR: the llama.cpp tree to build, with nextn's overlay and patches in it.
#
# Either the tree that NEXTN_LLAMA_SOURCE names, for work on the fork itself, or the one that scripts/vendor.py prepares
# in the user's cache. Both go through the script, which checks what it is given. As a CMake variable NEXTN_LLAMA_SOURCE
# is remembered by the build directory; as an environment variable it must be set whenever CMake runs.

find_package(Python REQUIRED COMPONENTS Interpreter)

set(NEXTN_LLAMA_SOURCE "" CACHE PATH "Build this llama.cpp working copy instead of preparing the pinned one")
set(llama_source_tree "${NEXTN_LLAMA_SOURCE}")
if (NOT llama_source_tree)
    set(llama_source_tree "$ENV{NEXTN_LLAMA_SOURCE}")
endif ()

set(vendor_script ${CMAKE_CURRENT_LIST_DIR}/../scripts/vendor.py)
set(vendor_folder ${CMAKE_CURRENT_LIST_DIR}/../vendor/llama.cpp)

if (llama_source_tree)
    set(vendor_arguments source ${llama_source_tree})
else ()
    set(vendor_arguments prepare)
    message(STATUS "Preparing llama.cpp (the first time it is downloaded, which takes about a minute)")
endif ()

execute_process(
    COMMAND ${Python_EXECUTABLE} ${vendor_script} ${vendor_arguments}
    WORKING_DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/.. # a relative NEXTN_LLAMA_SOURCE begins at the project
    OUTPUT_VARIABLE vendor_output
    ERROR_VARIABLE vendor_talk ECHO_ERROR_VARIABLE # progress is shown as it comes, and the message kept
    RESULT_VARIABLE vendor_result
    OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_STRIP_TRAILING_WHITESPACE)
if (NOT vendor_result EQUAL 0)
    string(REGEX REPLACE "^(.*\n)?error: " "" vendor_message "${vendor_talk}")
    string(REPLACE "\n" "\n  " vendor_message "${vendor_message}")
    message(FATAL_ERROR "\n  ${vendor_message}") # a leading blank keeps CMake from breaking lines
endif ()
string(REGEX REPLACE "^.*\n" "" NEXTN_LLAMA_DIR "${vendor_output}")
message(STATUS "llama.cpp: ${NEXTN_LLAMA_DIR}")

# A change of anything the tree is made of runs this file again with the next build. The stamp is in the list because the
# tree may be prepared by hand, or stopped half-way, between two builds.
if (NOT llama_source_tree)
    file(GLOB_RECURSE vendor_files CONFIGURE_DEPENDS
        ${vendor_folder}/UPSTREAM.toml ${vendor_folder}/series ${vendor_folder}/patches/*.patch ${vendor_folder}/overlay/*
        ${vendor_script} ${CMAKE_CURRENT_LIST_DIR}/../scripts/vendoring/*.py)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${vendor_files} ${NEXTN_LLAMA_DIR}/../stamp)
endif ()
