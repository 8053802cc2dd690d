#pragma once

// A slot's text as the draft engine knows it.

#include "mtmd.h"
#include "server-common.h"

#include <cstdint>

// Its tokens, and for each token of an image, or another medium, a negative number that says which image it is.
inline llama_tokens server_nextn_text(const server_tokens & tokens) {
    llama_tokens result;
    result.reserve(tokens.size());
    while (result.size() < tokens.size()) {
        const llama_token token = tokens[result.size()];
        if (token != LLAMA_TOKEN_NULL) {
            result.push_back(token);
            continue;
        }
        const auto * chunk = tokens.find_chunk(result.size()).get();
        uint32_t     hash  = 0x811c9dc5u; // FNV-1a
        for (const char * id = mtmd_input_chunk_get_id(chunk); id && *id; ++id) {
            hash = (hash ^ (uint8_t) *id) * 0x01000193u;
        }
        const llama_token mark = LLAMA_TOKEN_NULL - 1 - (llama_token) (hash & 0x3fffffffu);
        result.insert(result.end(), mtmd_input_chunk_get_n_tokens(chunk), mark);
    }
    return result;
}
