#pragma once

#include "llama.h"

#include <array>
#include <vector>

struct ggml_tensor;
struct llama_batch_ext;
struct llama_context;
struct llm_graph_context;

// Sequences that draft different numbers of tokens, in one pass.
//
// Recurrent layers take sequences of one length; a batch of several lengths is computed in several passes, each of
// which reads all weights. So the sequences of a verification are padded to the longest one. A padding row is taken
// back out of the memory at once, and costs little: behind each norm it is set to zero, and the kernels for narrow
// products skip columns of zeros. No row of another token reads it, so what those compute is what they compute without
// it.
class llama_nextn_padding {
public:
    // More tokens are computed as a prompt is, with other last bits (MAX_TOKENS of the narrow kernels).
    static constexpr int32_t max_tokens = 36;
    static constexpr int32_t max_seqs   = 256; // LLAMA_MAX_SEQ, whose header includes this one

    // The next batch is the verification of a round: pad it where that helps.
    void next() { pending = true; }

    // Whether this batch is padded. Only asked once a batch.
    bool applies(const llama_context & ctx, const llama_batch_ext & batch);

    // The batch with its padding at the end.
    llama_batch_ext pad(const llama_batch_ext & batch);

    struct span {
        llama_seq_id seq_id;
        llama_pos    end;       // position behind the last token
        int32_t      n_tokens;  // of the batch
        int32_t      n_padding; // behind them
    };
    const std::vector<span> & get_spans() const { return spans; }
    const llama_pos *         get_ends() const { return ends.data(); } // by sequence

private:
    bool find_spans(const llama_batch_ext & batch);
    bool fits(const llama_context & ctx) const;

    bool              pending = false;
    std::vector<span> spans;

    std::array<llama_pos, max_seqs> ends;
};

// llm_graph_context::build_norm: in the graph of a padded batch, with zeros in the padding's rows.
ggml_tensor * llama_nextn_build_live(const llm_graph_context & graph, ggml_tensor * cur);

// Let a gated delta net skip the padding.
ggml_tensor * llama_nextn_skip_padding(const llm_graph_context & graph, ggml_tensor * net);
