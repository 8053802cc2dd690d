#pragma once

#include "common.h"

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

// The hidden rows that stand at the ends of texts which may be taken up again, by the hash of the text: a prompt that
// goes on behind a checkpoint, a cached prompt or a restored slot is paired with the row it would have had.
class common_nextn_rows {
public:
    void put(const llama_tokens & text, const float * row, int32_t n_embd) {
        if (text.empty() || !row) {
            return;
        }
        const uint64_t key = hash(text);
        if (rows.find(key) == rows.end()) {
            order.push_back(key);
            if (order.size() > n_max) {
                rows.erase(order.front());
                order.pop_front();
            }
        }
        rows[key].assign(row, row + n_embd);
    }

    const float * get(const llama_tokens & text) const {
        const auto it = rows.find(hash(text));
        return it == rows.end() ? nullptr : it->second.data();
    }

private:
    static constexpr size_t n_max = 512; // a few MB

    static uint64_t hash(const llama_tokens & text) { // FNV-1a
        uint64_t h = 0xcbf29ce484222325u;
        for (const llama_token id : text) {
            h = (h ^ (uint32_t) id) * 0x100000001b3u;
        }
        return h;
    }

    std::unordered_map<uint64_t, std::vector<float>> rows;
    std::deque<uint64_t>                             order;
};
