#!/bin/sh
# Benchmark one model over types of the KV cache and modes of decoding, and compare them on one page.
#
#     scripts/bench_matrix.sh model.gguf results [options of nextn bench, such as --prompts 12 --seeds 1-3]
#
# CACHES names the types (default: f16 q8_0 q4_0), MODES of greedy and sampled the modes. Interrupted, it goes on where
# it was when the same command runs again. Needs: pip install "nextn[bench]"
set -eu
model=${1:?name a GGUF file}
results=${2:?name a folder for the receipts}
shift 2
mkdir -p "$results"
receipts=""
for cache in ${CACHES:-f16 q8_0 q4_0}; do
    for mode in ${MODES:-greedy sampled}; do
        case $mode in
        greedy) temperature=0 ;;
        sampled) temperature=0.7 ;;
        *) echo "MODES are greedy and sampled, not $mode" >&2; exit 2 ;;
        esac
        receipt=$results/$cache-$mode.json
        # a quantised V cache needs flash attention
        nextn bench -m "$model" -fa on -ctk "$cache" -ctv "$cache" --temp "$temperature" --resume -o "$receipt" "$@" \
            > "$results/$cache-$mode.md"
        receipts="$receipts $receipt"
    done
done
# shellcheck disable=SC2086  # the list is to be split; a folder with blanks in its name does not work
nextn bench report $receipts --html "$results/comparison.html" --markdown "$results/comparison.md"
