#pragma once

// Internal side of llama-nextn.h: what the patches under vendor/llama.cpp/patches call.

#include "llama-nextn-head.h"
#include "llama-nextn-padding.h"
#include "llama-nextn.h"

#include "ggml-backend.h"
#include "gguf.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

struct llama_batch_ext;
struct llama_context;
struct llama_ubatch;
class llm_graph_result;

// The part of llama_cparams that changes a graph; graphs are reused only while it is the same.
struct llama_nextn_cparams {
    bool pre_norm  = false; // export the rows before the final norm
    bool tap_pre   = false; // feed the head with them
    bool best      = false; // search the best token of each output row in the graph
    bool best_p    = false; // and its probability
    bool no_logits = false; // do not copy the logits to the host
    bool row       = false; // keep the logits of the output rows, short ones too
    bool fill      = false; // a draft graph stores its keys and values, and computes nothing else

    const llama_nextn_shortlist * shortlist    = nullptr; // rows of the output matrix that a draft graph scores
    int32_t                       n_prefix     = 0;       // and what of it shapes the graph
    int32_t                       n_extra_rows = 0;

    const llama_pos * ends = nullptr; // of the sequences in a padded batch: positions behind their tokens

    bool operator==(const llama_nextn_cparams & o) const {
        return pre_norm == o.pre_norm && tap_pre == o.tap_pre && best == o.best && best_p == o.best_p &&
               no_logits == o.no_logits && row == o.row && fill == o.fill && shortlist == o.shortlist &&
               n_prefix == o.n_prefix && n_extra_rows == o.n_extra_rows && ends == o.ends;
    }
};

// The tensors of a graph that nextn reads.
struct llama_nextn_tensors {
    ggml_tensor * pre_norm     = nullptr; // [n_embd, n_tokens] the hidden rows before the final norm
    ggml_tensor * short_logits = nullptr; // [n_prefix, n_outputs] what extra_logits add to, where a row is kept
    ggml_tensor * extra_logits = nullptr; // [n_extra_rows, n_outputs] of the tokens added to the shortlist
    ggml_tensor * best         = nullptr; // see llama_nextn_build_best
    ggml_tensor * live         = nullptr; // see llama_nextn_build_live
};

// What a llama_context keeps for nextn. Owned by the context, so freeing a context unpairs it.
class llama_nextn_state {
public:
    explicit llama_nextn_state(llama_context & ctx) : ctx(ctx) {}
    ~llama_nextn_state();

    llama_nextn_state(const llama_nextn_state &)             = delete;
    llama_nextn_state & operator=(const llama_nextn_state &) = delete;

    // hooks of llama_context::decode(): before the first ubatch, after each, and when one failed
    void decode_begin(uint32_t n_tokens);
    void ubatch_done(const llama_ubatch & ubatch, const llm_graph_result & res, ggml_backend_sched_t sched);
    void decode_failed();

    // hooks of llama_context::decode(), before all else: a batch that is padded goes another way
    bool pads(const llama_batch_ext & batch);
    int  decode_padded(const llama_batch_ext & batch);
    void pad_next() { padding.next(); }

    // hook of llama_context::process_ubatch(): the previous graph could not be reused
    void graph_built() { n_graph_builds++; }

    // the memory was replaced from outside (state restore): the snapshots no longer belong to it
    void forget_snapshots();

    void            set_tap(llama_nextn_tap tap);
    llama_nextn_tap get_tap() const;
    void            set_hidden(bool value);
    const float *   get_hidden(int32_t i);
    void            set_pre_norm(bool value);
    const float *   get_pre_norm(int32_t i);

    void set_best(bool value, bool with_p, bool keep_logits);
    bool get_best(int32_t i, llama_nextn_best & best);

    // keep the output rows of a decode: the logits of [prefix; extra] of token i, which is searched for its best, too
    struct row_view {
        const float * data;
        int64_t       size; // 0: no such row
    };
    void     set_row(bool value);
    row_view get_row(int32_t i);

    // of a draft context: the next decodes have no outputs and no hidden rows, they only go to its memory
    void set_fill(bool value);

    // the shortlist of a draft context; NULL: the whole vocabulary
    void                    set_shortlist(std::unique_ptr<llama_nextn_shortlist> list);
    llama_nextn_shortlist * get_shortlist() { return shortlist.get(); }
    void                    shortlist_changed();

    // wait until nothing is pending, also where a worker is lost: before something is freed
    void settle() noexcept;

    bool            pair(llama_context * ctx_dft);
    llama_context * get_ctx_dft() const { return ctx_dft; }

    int32_t max_snapshots() const; // tokens of a sequence in one batch that leave one each; 0: nothing is recurrent
    int32_t max_rollback(llama_seq_id seq_id) const;
    bool    seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1);

    int32_t get_n_ubatches() const { return n_ubatches; }
    int32_t get_n_graph_builds() const { return n_graph_builds; }

private:
    // a sequence's newest tokens that the recurrent snapshots of its last ubatch can take back
    struct snapshot {
        int32_t   n_tokens; // tokens of the sequence in that ubatch
        llama_pos pos;      // its newest position then
        int32_t   cell;     // its recurrent cell then
        uint32_t  rs_idx;   // snapshots behind its newest one, of padding
    };

    void take_snapshots(const llama_ubatch & ubatch);
    void take_back_padding();
    void collect_best(const llama_ubatch & ubatch, const llm_graph_result & res, ggml_backend_sched_t sched);
    void collect_rows(const llm_graph_result & res, ggml_backend_sched_t sched);
    const snapshot * find_snapshot(llama_seq_id seq_id) const;
    void             order_rows();
    bool             row_in_range(int32_t & i) const;

    llama_context & ctx;

    llama_context * ctx_tgt = nullptr; // set in a paired draft context
    llama_context * ctx_dft = nullptr; // set in a paired target

    std::vector<std::pair<llama_seq_id, snapshot>> snapshots;

    // rows before the norm, [n_tokens, n_embd], in the order the ubatches computed them until order_rows()
    std::vector<float>   rows;
    std::vector<int32_t> row_order; // computed row -> index in the batch; empty once ordered

    std::unique_ptr<llama_nextn_shortlist> shortlist;

    // parts of the best token of each output row, and which token of the batch each row belongs to
    std::vector<float>   best_parts;
    std::vector<int32_t> best_index;

    std::vector<float> short_rows; // see set_row(); as many as best_index has entries

    llama_nextn_padding padding;

    int32_t n_rows    = 0; // rows of the last batch
    int32_t n_tokens  = 0; // tokens of the last batch
    int32_t n_padding = 0; // of them, the last ones

    // since the context was made
    int32_t n_ubatches     = 0;
    int32_t n_graph_builds = 0;
};

// llama_init_from_model: turn nextn_draft into upstream's context type and sizes.
llama_context_params llama_nextn_apply(llama_context_params params);

// llm_graph_result::set_outputs: choose the row that feeds the head and keep exported rows alive.
void llama_nextn_set_outputs(llm_graph_result & res, const llama_nextn_cparams & cparams);

// llama_model_loader: give a head-only file in the older form the engine's own names, and refuse counts that later
// code only asserts on. Throws std::runtime_error.
void llama_nextn_prepare_metadata(gguf_context * metadata);
