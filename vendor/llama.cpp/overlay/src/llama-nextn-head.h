#pragma once

#include "llama.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstddef>
#include <cstdint>
#include <vector>

class llm_graph_input_attn_kv;
class llm_graph_result;
struct llama_nextn_cparams;

// The best token of a row of logits.
struct llama_nextn_best {
    llama_token id;
    float       p; // its probability in the soft-max over the row
};

// The part of the vocabulary that a draft head scores.
//
// Token ids of a BPE vocabulary are roughly in order of frequency, so the first rows of the output matrix are a free
// shortlist: a view. Other tokens are added one by one: their rows are copied into a matrix of their own, pinned ones
// at its beginning and behind them a ring that forgets the oldest. Of a repacked matrix whole groups of interleaved
// rows are copied, so that the copy keeps its layout; a group's other tokens are candidates then, too.
class llama_nextn_shortlist {
public:
    // head: the output matrix [n_embd, n_vocab]; pinned: tokens to keep for ever; n_ring: rows for those that are
    // added.
    llama_nextn_shortlist(ggml_tensor * head, const std::vector<llama_token> & pinned, int32_t n_ring);

    // Whether rows of this matrix can be taken apart.
    static bool supports(const ggml_tensor * head);

    // Score ids [0, n). 0: the added tokens only. n >= n_vocab: all of them.
    void set_prefix(int32_t n);

    // Keep a token; false when it was there.
    bool add(llama_token id);

    // Forget all added tokens, but not the pinned ones.
    void clear();

    bool contains(llama_token id) const;

    int32_t get_n_prefix() const { return n_prefix; }
    int32_t get_n_extra() const { return n_extra; }
    size_t  get_n_bytes() const; // of memory beside the model

    // graph building: the view of the prefix (NULL: none) and of the added rows (NULL: none)
    ggml_tensor * build_prefix(ggml_context * ctx0) const;
    ggml_tensor * build_extra(ggml_context * ctx0) const;

    // rows of build_extra(): n_extra rounded up, so that adding a token seldom changes the graph
    int32_t get_n_extra_rows() const;

    // the token of a row of [prefix; extra]
    llama_token token_of(int64_t row) const;

private:
    void copy_rows(int32_t group, int32_t slot);

    ggml_tensor * head;
    int32_t       n_vocab;
    int32_t       group_rows; // rows that are copied together
    int32_t       n_prefix;
    int32_t       n_extra   = 0; // valid rows of extra
    int32_t       n_pinned  = 0; // slots before the ring; a slot holds a group
    int32_t       next_slot = 0; // of the ring
    int32_t       n_slots;

    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buf;
    ggml_tensor *           extra = nullptr; // [n_embd, n_slots * group_rows]

    std::vector<int32_t> slot_group; // slot -> group of rows of the head
    std::vector<int32_t> group_slot; // group of rows of the head -> slot, -1 when absent
};

// Where the parts of the best token of each row are put together: see llama_nextn_build_best.
constexpr int64_t llama_nextn_best_parts = 16;

// The draft graphs call this where they multiply with the output matrix: the rows of it that are to be scored.
ggml_tensor * llama_nextn_short_head(ggml_context * ctx0, llm_graph_result & res, const llama_nextn_cparams & cparams,
                                     ggml_tensor * head, ggml_tensor * cur);

// The draft graphs call this where they would attend, when llama_nextn_cparams::fill is set: store the keys and values
// of all rows. What a prompt leaves in a draft memory is no more than that; queries, attention and feed-forward of its
// rows would be computed for nothing.
void llama_nextn_build_fill(ggml_context * ctx0, ggml_cgraph * gf, const llm_graph_input_attn_kv & inp,
                            ggml_tensor * out_ids, ggml_tensor * k, ggml_tensor * v, int il);

// Add the search for the best token of each output row to a graph that has its logits. F32 [4, parts, n_outputs]:
// maximum, row of it, and the sum of exp(logit - maximum) when with_p, of each part of the row.
ggml_tensor * llama_nextn_build_best(ggml_context * ctx0, ggml_tensor * logits, ggml_tensor * extra,
                                     const llama_nextn_shortlist * shortlist, bool with_p);

// Combine the parts of one row. The token is that of the lowest row among equals; LLAMA_TOKEN_NULL when no logit is a
// number.
llama_nextn_best llama_nextn_combine_best(const float * parts, const llama_nextn_shortlist * shortlist);
