#pragma once

#include "llama.h"

#include <cstdint>
#include <vector>

// A batch with one sequence a row. Tokens and hidden rows stay with the caller.
class llama_nextn_batch {
public:
    void clear() {
        pos.clear();
        seq_ids.clear();
        outputs.clear();
    }

    void add(llama_pos p, llama_seq_id seq_id, bool output) {
        pos.push_back(p);
        seq_ids.push_back(seq_id);
        outputs.push_back(output);
    }

    // For llama_decode, until rows change. hidden: [rows, n_embd].
    llama_batch view(const llama_token * tokens, const float * hidden) {
        n_seq_id.assign(pos.size(), 1);
        seq_id_ptrs.resize(pos.size());
        for (size_t i = 0; i < pos.size(); ++i) {
            seq_id_ptrs[i] = &seq_ids[i];
        }
        llama_batch batch = {};
        batch.n_tokens    = (int32_t) pos.size();
        batch.token       = const_cast<llama_token *>(tokens);
        batch.embd        = const_cast<float *>(hidden);
        batch.pos         = pos.data();
        batch.n_seq_id    = n_seq_id.data();
        batch.seq_id      = seq_id_ptrs.data();
        batch.logits      = outputs.data();
        return batch;
    }

private:
    std::vector<llama_pos>      pos;
    std::vector<llama_seq_id>   seq_ids;
    std::vector<llama_seq_id *> seq_id_ptrs;
    std::vector<int32_t>        n_seq_id;
    std::vector<int8_t>         outputs;
};
