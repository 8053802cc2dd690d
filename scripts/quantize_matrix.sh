#!/bin/sh
# Make several quantizations of a model with and without care for its draft head, compare and benchmark them.
#
#     scripts/quantize_matrix.sh model-F16.gguf results text.txt [options of nextn bench, such as --prompts 12]
#
# TYPES (default: Q8_0 Q6_K Q5_K_M Q4_K_M) and RECIPES (default: base combined) name what is made, QUANTIZE_OPTIONS further
# options of nextn quantize-matrix, such as "--imatrix FILE"; text.txt is what the perplexity is measured on. Interrupted,
# the benchmarks go on where they were when the same command runs again.
# Needs: pip install "nextn[bench]"
set -eu
model=${1:?name a GGUF file in F16, BF16 or F32}
results=${2:?name a folder for the files}
text=${3:?name a text file}
shift 3
mkdir -p "$results"
recipes=""
for recipe in ${RECIPES:-base combined}; do
    recipes="$recipes --recipe $recipe"
done
if [ ! -e "$results/matrix.md" ]; then
    # shellcheck disable=SC2086  # lists are to be split
    nextn quantize-matrix "$model" "$results" ${TYPES:-Q8_0 Q6_K Q5_K_M Q4_K_M} --text "$text" $recipes \
        ${QUANTIZE_OPTIONS:-} > "$results/matrix.part"
    mv "$results/matrix.part" "$results/matrix.md"
fi
set -- "$@" --resume
receipts=""
for file in "$results"/*.gguf; do
    receipt=${file%.gguf}.json
    nextn bench -m "$file" -o "$receipt" "$@" > "${file%.gguf}.md"
    receipts="$receipts $receipt"
done
# shellcheck disable=SC2086
nextn bench report $receipts --html "$results/comparison.html" --markdown "$results/comparison.md"
