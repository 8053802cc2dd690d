#!/bin/sh
# Serve a mixture-of-experts model of the 35B-A3B class with its own draft head, at http://127.0.0.1:8080/v1.
#
#     scripts/serve_35b_a3b.sh Qwen3.6-35B-A3B-MTP-Q4_K_M.gguf    further options go to nextn serve
#
# Only 3B of the weights take part in each token, so the experts may stay in main memory: EXPERTS_ON_CPU=N keeps those of
# the first N layers there (99: all), which leaves little for the GPU. CTX, CACHE, NGL, PORT as in serve_27b.sh.
set -eu
model=${1:?name a GGUF file with a draft head}
shift
exec nextn serve -m "$model" -c "${CTX:-16384}" -ngl "${NGL:--1}" --port "${PORT:-8080}" --draft-max "${DRAFT_MAX:-4}" \
    "$@" -- -fa auto -ctk "${CACHE:-f16}" -ctv "${CACHE:-f16}" --n-cpu-moe "${EXPERTS_ON_CPU:-0}"
