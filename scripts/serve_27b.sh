#!/bin/sh
# Serve a dense model of the 27B class with its own draft head, at http://127.0.0.1:8080/v1 (OpenAI's API).
#
#     scripts/serve_27b.sh Qwen3.6-27B-MTP-Q4_K_M.gguf            further options go to nextn serve
#
# CTX tokens fit (default 16384); CACHE is the type of the KV cache (q8_0 takes half the memory of f16); NGL layers go to
# the GPU (default: all). `nextn inspect FILE` says whether the file has a draft head.
set -eu
model=${1:?name a GGUF file with a draft head}
shift
exec nextn serve -m "$model" -c "${CTX:-16384}" -ngl "${NGL:--1}" --port "${PORT:-8080}" --draft-max "${DRAFT_MAX:-6}" \
    "$@" -- -fa auto -ctk "${CACHE:-f16}" -ctv "${CACHE:-f16}"
