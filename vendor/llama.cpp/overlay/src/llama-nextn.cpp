// The C interface of llama-nextn.h, and which models and parameters it takes.

#include "llama-context.h"
#include "llama-ext.h"
#include "llama-impl.h"
#include "llama-model.h"
#include "llama-nextn-stamp.h"
#include "llama-nextn-state.h"

static bool nextn_arch_known(const llama_model & model) {
    return model.arch == LLM_ARCH_QWEN35 || model.arch == LLM_ARCH_QWEN35MOE || model.arch == LLM_ARCH_QWEN3NEXT;
}

static const char * nextn_head_refusal(const llama_model & model) {
    const auto & hparams = model.hparams;

    if (hparams.n_layer_nextn == 0) {
        return "the model has no NextN layer";
    }
    if (!nextn_arch_known(model)) {
        return "the NextN layer of this architecture is not supported";
    }
    if (hparams.n_layer_nextn != 1) {
        return "models with more than one NextN layer are not supported";
    }
    const auto & nextn = model.layers[hparams.n_layer()].nextn;
    if (!nextn.eh_proj || !nextn.enorm || !nextn.hnorm) {
        return "the model was loaded without its NextN layer (llama_model_params.load_mtp)";
    }
    return nullptr;
}

const char * llama_nextn_build_stamp(void) {
    return LLAMA_NEXTN_BUILD_STAMP;
}

bool llama_model_has_nextn_layer(const llama_model * model) {
    return model && !model->hparams.vocab_only && !nextn_head_refusal(*model);
}

bool llama_model_is_nextn_only(const llama_model * model) {
    return model && !model->hparams.vocab_only && nextn_arch_known(*model) && model->hparams.n_layer_nextn > 0 &&
           model->hparams.n_layer() > 0 && !model->layers[0].attn_norm;
}

const char * llama_nextn_refusal(const llama_model * model, llama_context_params params) {
    if (!model) {
        return "there is no model";
    }
    const bool is_draft = params.nextn_draft || (params.ctx_type == LLAMA_CONTEXT_TYPE_MTP && nextn_arch_known(*model));
    if (is_draft) {
        return nextn_head_refusal(*model);
    }
    if (llama_model_is_nextn_only(model)) {
        return "the file holds only the NextN layer: it can draft for its full model, not decode";
    }
    return nullptr;
}

llama_context_params llama_nextn_apply(llama_context_params params) {
    if (params.nextn_draft) {
        params.ctx_type = LLAMA_CONTEXT_TYPE_MTP;
        params.n_rs_seq = 0; // one attention layer: nothing recurrent to roll back
    }
    return params;
}

void llama_set_nextn_tap(llama_context * ctx, llama_nextn_tap tap) {
    ctx->nextn.set_tap(tap);
}

llama_nextn_tap llama_get_nextn_tap(const llama_context * ctx) {
    return ctx->nextn.get_tap();
}

void llama_set_nextn_hidden(llama_context * ctx, bool value) {
    ctx->nextn.set_hidden(value);
}

float * llama_get_nextn_hidden(llama_context * ctx) {
    return llama_get_nextn_hidden_ith(ctx, 0);
}

float * llama_get_nextn_hidden_ith(llama_context * ctx, int32_t i) {
    return const_cast<float *>(ctx->nextn.get_hidden(i));
}

void llama_set_embeddings_pre_norm(llama_context * ctx, bool value) {
    ctx->nextn.set_pre_norm(value);
}

float * llama_get_embeddings_pre_norm(llama_context * ctx) {
    return llama_get_embeddings_pre_norm_ith(ctx, 0);
}

float * llama_get_embeddings_pre_norm_ith(llama_context * ctx, int32_t i) {
    return const_cast<float *>(ctx->nextn.get_pre_norm(i));
}

void llama_set_nextn_best(llama_context * ctx, bool value, bool with_p, bool keep_logits) {
    ctx->nextn.set_best(value, with_p, keep_logits);
}

bool llama_get_nextn_best_ith(llama_context * ctx, int32_t i, llama_token * id, float * p) {
    llama_nextn_best best;
    if (!ctx->nextn.get_best(i, best)) {
        return false;
    }
    *id = best.id;
    if (p) {
        *p = best.p;
    }
    return true;
}

bool llama_set_nextn(llama_context * ctx_tgt, llama_context * ctx_dft) {
    return ctx_tgt && ctx_tgt->nextn.pair(ctx_dft);
}

llama_context * llama_get_nextn(const llama_context * ctx_tgt) {
    return ctx_tgt->nextn.get_ctx_dft();
}

int32_t llama_nextn_max_rollback(const llama_context * ctx_tgt, llama_seq_id seq_id) {
    return ctx_tgt->nextn.max_rollback(seq_id);
}

bool llama_context_nextn_seq_rm(llama_context * ctx_tgt, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    return ctx_tgt && ctx_tgt->nextn.seq_rm(seq_id, p0, p1);
}

int32_t llama_nextn_n_graph_builds(const llama_context * ctx) {
    return ctx->nextn.get_n_graph_builds();
}

int32_t llama_nextn_n_graph_reuses(const llama_context * ctx) {
    return ctx->nextn.get_n_ubatches() - ctx->nextn.get_n_graph_builds();
}
