#include "llama-nextn-padding.h"

#include "llama-batch.h"
#include "llama-context.h"
#include "llama-graph.h"
#include "llama-nextn-state.h"

#include <algorithm>

// Tokens for which the kernels walk the weights once (MAX_COLUMNS there).
static constexpr int32_t max_columns = 9;

static_assert(llama_nextn_padding::max_seqs == LLAMA_MAX_SEQ);

bool llama_nextn_padding::applies(const llama_context & ctx, const llama_batch_ext & batch) {
    if (!pending) {
        return false;
    }
    pending = false;
    return find_spans(batch) && fits(ctx);
}

// Whether the batch is one run of tokens with outputs for each of several sequences, of different lengths.
bool llama_nextn_padding::find_spans(const llama_batch_ext & batch) {
    spans.clear();
    int32_t longest = 0;
    if (batch.n_embd > 0 || (int32_t) batch.tokens.size() > max_tokens) {
        return false;
    }
    for (const auto & token : batch.tokens) {
        if (!token.output || token.id < 0 || token.seq_ids.size() != 1) {
            return false;
        }
        const llama_seq_id seq_id = *token.seq_ids.begin();
        if (spans.empty() || spans.back().seq_id != seq_id) {
            if (std::any_of(spans.begin(), spans.end(), [&](const span & s) { return s.seq_id == seq_id; })) {
                return false;
            }
            spans.push_back({seq_id, 0, 0, 0});
        }
        spans.back().end = token.pos[0] + 1;
        longest          = std::max(longest, ++spans.back().n_tokens);
    }
    bool unequal = false;
    for (span & s : spans) {
        s.n_padding = longest - s.n_tokens;
        unequal     = unequal || s.n_padding > 0;
    }
    return unequal;
}

// Whether there is something to gain, and room for the rows. A row costs up to half of what a token does; a pass more
// costs little where the kernels walk the weights twice anyhow.
bool llama_nextn_padding::fits(const llama_context & ctx) const {
    const auto &  cparams  = ctx.get_cparams();
    const int32_t longest  = spans[0].n_tokens + spans[0].n_padding;
    const int32_t n_tokens = (int32_t) spans.size() * longest;
    int32_t       n_live   = 0;
    for (const span & s : spans) {
        n_live += s.n_tokens;
    }
    if (n_live > max_columns && 2 * (n_tokens - n_live) > n_live) {
        return false;
    }
    if (longest > ctx.nextn.max_snapshots() || n_tokens > max_tokens || n_tokens > (int32_t) cparams.n_ubatch) {
        return false;
    }
    llama_pos used = n_tokens;
    for (llama_seq_id seq_id = 0; seq_id < (llama_seq_id) cparams.n_seq_max; ++seq_id) {
        used += ctx.get_memory()->seq_pos_max(seq_id) + 1;
    }
    return (!cparams.kv_unified || used <= (llama_pos) cparams.n_ctx) &&
           std::all_of(spans.begin(), spans.end(), [&](const span & s) {
               return s.end + s.n_padding <= (llama_pos) cparams.n_ctx_seq && s.seq_id < (llama_seq_id) ends.size();
           });
}

llama_batch_ext llama_nextn_padding::pad(const llama_batch_ext & batch) {
    llama_batch_ext padded = batch;
    for (const span & s : spans) {
        ends[s.seq_id]  = s.end;
        const auto last = std::find_if(batch.tokens.begin(), batch.tokens.end(), [&](const auto & token) {
            return *token.seq_ids.begin() == s.seq_id && token.pos[0] + 1 == s.end;
        });
        for (int32_t i = 0; i < s.n_padding; ++i) {
            auto token = *last;
            for (llama_pos & pos : token.pos) {
                pos += i + 1;
            }
            padded.tokens.push_back(token);
        }
    }
    return padded;
}

namespace {

// [1, n_tokens]: 1 for a token, 0 for padding.
class input_live : public llm_graph_input_i {
public:
    input_live(ggml_tensor * live, const llama_pos * ends) : live(live), ends(ends) {}

    void set_input(const llama_ubatch * ubatch) override {
        std::vector<float> values(ubatch->n_tokens);
        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            values[i] = ubatch->pos[i] < ends[ubatch->seq_id[i][0]] ? 1.0f : 0.0f;
        }
        ggml_backend_tensor_set(live, values.data(), 0, ggml_nbytes(live));
    }

    bool can_reuse(const llm_graph_params & params) override {
        return live->ne[1] == (int64_t) params.ubatch.n_tokens && ends == params.cparams.nextn.ends;
    }

private:
    ggml_tensor *     live;
    const llama_pos * ends;
};

} // namespace

ggml_tensor * llama_nextn_build_live(const llm_graph_context & graph, ggml_tensor * cur) {
    const llama_pos * ends = graph.cparams.nextn.ends;
    if (!ends || ggml_nrows(cur) != graph.n_tokens || cur->ne[1] != graph.n_tokens) {
        return cur;
    }
    ggml_tensor *& live = graph.res->nextn.live;
    if (!live) {
        live = ggml_new_tensor_2d(graph.ctx0, GGML_TYPE_F32, 1, graph.n_tokens);
        ggml_set_input(live);
        graph.res->add_input(std::make_unique<input_live>(live, ends));
    }
    return ggml_mul(graph.ctx0, cur, live);
}

ggml_tensor * llama_nextn_skip_padding(const llm_graph_context & graph, ggml_tensor * net) {
    net->src[6] = graph.res->nextn.live; // the norm before the layer has made it; kernels that do not know it ignore it
    return net;
}
