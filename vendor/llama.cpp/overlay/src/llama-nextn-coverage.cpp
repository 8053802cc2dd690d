#include "llama-nextn-coverage.h"

#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>
#include <memory>

static constexpr int32_t prefix_min = 16384; // scoring fewer rows saves less than a miss costs
static constexpr int32_t prefix_auto =
    32768; // covers 91 to 95 % of code, docs and English, 97 to 98.5 with the context
static constexpr int32_t n_text_max    = 4096; // rows of added tokens kept: a few MB
static constexpr int32_t n_special_max = 256;
static constexpr double  miss_gain     = 1.0 / 128;
static constexpr double  miss_high     = 0.04;  // widen the prefix beyond this
static constexpr double  miss_low      = 0.002; // narrow it below this
static constexpr int64_t miss_every    = 256;   // tokens between two looks

// What a chat format emits although its ids are high: end of turn first.
static void add_specials(std::vector<llama_token> & ids, const llama_vocab & vocab, int32_t n_prefix) {
    int32_t n = 0;
    for (const bool eog : {true, false}) {
        for (llama_token id = n_prefix; id < (llama_token) vocab.n_tokens() && n < n_special_max; ++id) {
            if (vocab.is_eog(id) == eog && (eog || vocab.is_control(id) || vocab.is_user_defined(id))) {
                ids.push_back(id);
                n++;
            }
        }
    }
}

llama_nextn_coverage::llama_nextn_coverage(llama_context & ctx_dft, const llama_nextn_draft_params & params,
                                           size_t n_seqs)
    : ctx_dft(ctx_dft), n_vocab((int32_t) ctx_dft.get_model().vocab.n_tokens()),
      fitted(params.n_vocab == 0 && params.n_vocab_ids == 0), texts(n_seqs) {
    const auto & model = ctx_dft.get_model();
    const auto & nextn = model.layers[model.hparams.n_layer()].nextn;
    auto *       head  = nextn.shared_head_head ? nextn.shared_head_head : model.output;

    const bool    by_list  = params.n_vocab_ids > 0;
    const int32_t n_prefix = by_list ? 0 : params.n_vocab > 0 ? params.n_vocab : prefix_auto;
    if ((by_list || (params.n_vocab >= 0 && n_prefix < n_vocab)) && llama_nextn_shortlist::supports(head)) {
        std::vector<llama_token> pinned(params.vocab_ids, params.vocab_ids + params.n_vocab_ids);
        add_specials(pinned, model.vocab, n_prefix);
        auto list = std::make_unique<llama_nextn_shortlist>(head, pinned, n_text_max);
        list->set_prefix(n_prefix);
        ctx_dft.nextn.set_shortlist(std::move(list));
    }
}

llama_nextn_coverage::~llama_nextn_coverage() {
    ctx_dft.nextn.set_shortlist(nullptr);
}

llama_nextn_shortlist * llama_nextn_coverage::get_list() const {
    return ctx_dft.nextn.get_shortlist();
}

void llama_nextn_coverage::note_text(llama_seq_id seq_id, const llama_token * tokens, int32_t n_tokens) {
    auto * list = get_list();
    if (!list) {
        return;
    }
    auto & text  = texts[seq_id];
    bool   added = false;
    for (int32_t i = 0; i < n_tokens; ++i) {
        if (tokens[i] >= list->get_n_prefix()) {
            added = list->add(tokens[i]) || added;
            text.push_back(tokens[i]);
        }
    }
    if (text.size() > 2 * n_text_max) {
        text.erase(text.begin(), text.end() - n_text_max);
    }
    if (added) {
        ctx_dft.nextn.shortlist_changed();
    }
}

void llama_nextn_coverage::note_emitted(llama_token id) {
    auto * list = get_list();
    if (!list) {
        return;
    }
    const bool added = list->add(id);
    miss += miss_gain * ((added ? 1.0 : 0.0) - miss);
    n_emitted++;
    if (added) {
        ctx_dft.nextn.shortlist_changed();
    }
}

void llama_nextn_coverage::note_accepted(int32_t n) {
    n_emitted += n;
    for (int32_t i = 0; i < n; ++i) {
        miss -= miss_gain * miss;
    }
}

void llama_nextn_coverage::fit_prefix() {
    auto * list = get_list();
    if (!list || !fitted || n_emitted < miss_every) {
        return;
    }
    n_emitted       = 0;
    const int32_t n = list->get_n_prefix();
    if (miss > miss_high && n < n_vocab) {
        prefix_floor = 2 * n;
        list->set_prefix(2 * n);
    } else if (miss < miss_low && n / 2 >= std::max(prefix_min, prefix_floor)) {
        list->set_prefix(n / 2);
    } else {
        return;
    }
    ctx_dft.nextn.shortlist_changed();
}

void llama_nextn_coverage::reset_prefix() {
    if (auto * list = get_list(); list && fitted) {
        list->set_prefix(prefix_auto);
        ctx_dft.nextn.shortlist_changed();
    }
}

void llama_nextn_coverage::forget_text(llama_seq_id seq_id) {
    auto * list = get_list();
    texts[seq_id].clear();
    if (!list) {
        return;
    }
    list->clear();
    for (const auto & text : texts) {
        for (const llama_token id : text) {
            list->add(id);
        }
    }
    ctx_dft.nextn.shortlist_changed();
}

void llama_nextn_coverage::get_stats(llama_nextn_draft_stats & stats) const {
    stats.n_prefix = n_vocab;
    stats.miss     = miss;
    if (const auto * list = get_list()) {
        stats.n_prefix      = list->get_n_prefix();
        stats.n_extra       = list->get_n_extra();
        stats.n_extra_bytes = (int64_t) list->get_n_bytes();
    }
}
