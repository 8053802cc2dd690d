# The engine's build options: each one set here, once, with its reason.
#
# A value given on the command line (cmake -D…, or CMAKE_ARGS for pip) wins over the one below. Values are set as plain
# variables, not cache entries, so that an existing build directory follows a change of this file.

macro(engine_option name value)
    if (NOT DEFINED CACHE{${name}})
        set(${name} ${value})
    endif ()
endmacro()

# One library per part, shared by _core and the tools; also what loading backends at run time needs.
engine_option(BUILD_SHARED_LIBS ON)

# Chat templates, sampling and the speculative driver live in common; llama-server is one of the tools.
engine_option(LLAMA_BUILD_COMMON ON)
engine_option(LLAMA_BUILD_TOOLS ON)
engine_option(LLAMA_BUILD_SERVER ON)

# Not used here, and a good part of the build time. Tools are picked by target: see NEXTN_TOOLS.
engine_option(LLAMA_BUILD_TESTS OFF)
engine_option(LLAMA_BUILD_EXAMPLES OFF)
engine_option(LLAMA_BUILD_APP OFF)

# The server's web page is a download, or a build with npm; the API needs neither.
engine_option(LLAMA_USE_PREBUILT_UI OFF)
engine_option(LLAMA_BUILD_UI OFF)

# Models are fetched by Python (extra "hf"), so the server needs no TLS library at run time.
engine_option(LLAMA_OPENSSL OFF)
engine_option(LLAMA_CURL OFF)

# Models larger than one machine. Nothing is connected to unless a worker is named. An option of our own: existing build
# directories remember upstream's as off.
option(NEXTN_RPC "Build the RPC backend and its worker, ggml-rpc-server" ON)
set(GGML_RPC ${NEXTN_RPC})

# CMakeLists.txt sets the compiler cache; ggml would set it a second time.
engine_option(GGML_CCACHE OFF)

# Upstream's warnings are upstream's affair: ours are errors, see nextn_own_warnings in CMakeLists.txt.
engine_option(LLAMA_ALL_WARNINGS OFF)

if (NEXTN_PORTABLE)
    # For wheels: one CPU library per instruction set, the best one is chosen when the engine starts.
    engine_option(GGML_NATIVE OFF)
    engine_option(GGML_BACKEND_DL ON)
    engine_option(GGML_CPU_ALL_VARIANTS ON)
else ()
    # For a build that stays on this machine: everything its CPU has.
    engine_option(GGML_NATIVE ON)
endif ()
