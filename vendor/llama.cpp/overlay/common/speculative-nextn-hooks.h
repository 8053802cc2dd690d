#pragma once

// The functions of speculative-nextn.h. Included by speculative.cpp, behind common_speculative.

#include "speculative-nextn-impl.h"

#include <filesystem>

static common_speculative_impl_nextn * common_speculative_find_nextn(const common_speculative * spec) {
    for (size_t i = 0; spec && i < spec->impls.size(); ++i) {
        if (spec->impls[i]->type == COMMON_SPECULATIVE_TYPE_NEXTN) {
            return static_cast<common_speculative_impl_nextn *>(spec->impls[i].get());
        }
    }
    return nullptr;
}

bool common_speculative_is_nextn(const std::vector<common_speculative_type> & types) {
    return std::find(types.begin(), types.end(), COMMON_SPECULATIVE_TYPE_NEXTN) != types.end();
}

bool common_speculative_uses_head(const std::vector<common_speculative_type> & types) {
    return common_speculative_is_nextn(types) ||
           std::find(types.begin(), types.end(), COMMON_SPECULATIVE_TYPE_DRAFT_MTP) != types.end();
}

void common_speculative_resolve_nextn(common_params & params) {
    auto & spec = params.speculative;
    if (!common_speculative_is_nextn(spec.types)) {
        return;
    }
    if (spec.draft.n_max < 0 || spec.draft.n_max > common_speculative_phases::k_max || spec.draft.n_min < 0 ||
        spec.draft.n_min > spec.draft.n_max || !(spec.draft.p_min >= 0.0f && spec.draft.p_min <= 1.0f)) {
        throw std::invalid_argument("--spec-type nextn: --draft-max is 0 to 16, --draft-min 0 to --draft-max, "
                                    "--draft-p-min 0 to 1");
    }
    if (std::find(spec.types.begin(), spec.types.end(), COMMON_SPECULATIVE_TYPE_DRAFT_MTP) != spec.types.end()) {
        throw std::invalid_argument("--spec-type: nextn and draft-mtp both drive the head; choose one");
    }
    if (spec.draft.n_max == 0) {
        spec.types.erase(std::remove(spec.types.begin(), spec.types.end(), COMMON_SPECULATIVE_TYPE_NEXTN),
                         spec.types.end());
        spec.draft.mparams = {};
        return;
    }
    std::error_code error;
    if (spec.has_dft() && std::filesystem::equivalent(spec.draft.mparams.path, params.model.path, error) && !error) {
        spec.draft.mparams = {}; // the head is in the model that is loaded
    }
}

int32_t common_speculative_request_n_max(const common_params_speculative & params, int32_t n_max) {
    return common_speculative_uses_head(params.types) ? std::min(n_max, params.draft.n_max) : n_max;
}

llama_context * common_speculative_server_ctx(const common_speculative * spec, llama_context * ctx_dft) {
    return common_speculative_find_nextn(spec) ? nullptr : ctx_dft;
}

void common_speculative_resume(common_speculative * spec, llama_seq_id seq_id, const llama_tokens & text, llama_pos pos,
                               const common_params_speculative & params, const common_params_sampling & sampling) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        impl->resume(seq_id, text, pos, params, sampling);
    }
}

llama_tokens common_speculative_sample(common_speculative * spec, llama_seq_id seq_id, common_sampler * smpl,
                                       llama_context * ctx_tgt, const std::vector<int> & idxs,
                                       const llama_tokens & draft) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        return impl->sample(seq_id, smpl, idxs, draft);
    }
    return common_sampler_sample_and_accept_n(smpl, ctx_tgt, idxs, draft);
}

llama_token common_speculative_best(llama_context * ctx_tgt, int idx) {
    llama_token id = LLAMA_TOKEN_NULL;
    if (llama_get_nextn_best_ith(ctx_tgt, idx, &id, nullptr) && id == LLAMA_TOKEN_NULL) {
        throw std::runtime_error("the model gave logits that are no numbers: the file or the computation is broken");
    }
    return id;
}

void common_speculative_release(common_speculative * spec, llama_seq_id seq_id) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        impl->release(seq_id);
    }
}

void common_speculative_flush(common_speculative * spec, llama_seq_id seq_id) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        impl->flush(seq_id);
    }
}

void common_speculative_copy(common_speculative * spec, llama_seq_id seq_id, llama_seq_id seq_id_to,
                             const common_params_speculative & params, const common_params_sampling & sampling) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        impl->copy(seq_id, seq_id_to, params, sampling);
    }
}

void common_speculative_save(common_speculative * spec, llama_seq_id seq_id, const std::string & path) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        impl->save(seq_id, path);
    }
}

void common_speculative_load(common_speculative * spec, llama_seq_id seq_id, const std::string & path,
                             const llama_tokens & text) {
    if (auto * impl = common_speculative_find_nextn(spec)) {
        impl->load(seq_id, path, text);
    }
}

common_speculative_phases common_speculative_get_phases(const common_speculative * spec, llama_seq_id seq_id) {
    const auto * impl = common_speculative_find_nextn(spec);
    return impl ? impl->seqs[seq_id].phases : common_speculative_phases{};
}
