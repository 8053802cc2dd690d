// Drafting for several sequences at once, as a server does: the rows of a step share one decode, and all drafts of a
// round are equally long, because the target computes sequences of different lengths one after the other.

#include "llama-context.h"
#include "llama-model.h"
#include "llama-nextn-drafter.h"

#include <algorithm>

// Rows of several sequences for one decode of the draft context.
struct llama_nextn_drafter::rows {
    std::vector<llama_token> tokens;
    std::vector<float>       hidden;
    llama_nextn_batch        batch;

    void add(llama_token token, const float * h, int32_t n_embd, llama_pos pos, llama_seq_id seq_id, bool output) {
        tokens.push_back(token);
        hidden.insert(hidden.end(), h, h + n_embd);
        batch.add(pos, seq_id, output);
    }

    int32_t decode(llama_nextn_drafter & drafter, bool output) {
        return tokens.empty() ? 0 : drafter.run(batch.view(tokens.data(), hidden.data()), output);
    }
};

// Rows of kept tokens that wait: apart from the chain's first step, whose rows are then one for each sequence.
int32_t llama_nextn_drafter::group_catch_up(const std::vector<llama_seq_id> & members) {
    const int32_t n_batch = (int32_t) ctx_dft->n_batch();
    rows          all;
    for (const llama_seq_id seq_id : members) {
        auto & seq = seqs[seq_id];
        ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true, -1);
        if ((int32_t) seq.tokens.size() > seq.n_max || (int32_t) (all.tokens.size() + seq.tokens.size()) > n_batch) {
            if (const int32_t ret = flush(seq_id)) { // of a prompt
                return ret;
            }
        }
        for (size_t i = 0; i < seq.tokens.size(); ++i) {
            all.add(seq.tokens[i], seq.hidden.data() + i * n_embd, n_embd, seq.n_true + (llama_pos) i, seq_id, false);
        }
    }
    const int32_t ret = all.decode(*this, false);
    for (const llama_seq_id seq_id : members) {
        auto & seq = seqs[seq_id];
        if (ret != 0) {
            ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true, -1);
            continue;
        }
        seq.n_true += (llama_pos) seq.tokens.size();
        seq.tokens.clear();
        seq.hidden.clear();
    }
    return ret;
}

// One more token for each member that goes on; those that end leave the list.
int32_t llama_nextn_drafter::group_step(std::vector<llama_seq_id> & members) {
    rows step;
    for (const llama_seq_id seq_id : members) {
        auto &     seq   = seqs[seq_id];
        const bool first = seq.n_steps == 0;
        step.add(first ? seq.id_last : seq.drafted.back(), first ? seq.carry.data() : seq.chain.data(), n_embd,
                 first ? seq.n_true : seq.n_true + seq.n_steps - 1, seq_id, true);
    }
    if (const int32_t ret = step.decode(*this, true)) {
        for (const llama_seq_id seq_id : members) {
            auto & seq = seqs[seq_id];
            ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true + std::max(0, seq.n_steps - 1), -1);
        }
        return ret;
    }
    std::vector<llama_seq_id> going_on;
    for (int32_t i = 0; i < (int32_t) members.size(); ++i) {
        auto &           seq = seqs[members[i]];
        llama_nextn_best best;
        if (!read_best(seq, i, best)) {
            return -1;
        }
        if (seq.n_steps++ == 0) {
            seq.n_true++;
            seq.ahead = seq.id_last;
        }
        if (take(seq, best) && (int32_t) seq.drafted.size() < seq.n_room) {
            const float * row = ctx_dft->nextn.get_hidden(i);
            seq.chain.assign(row, row + n_embd); // the next decode overwrites it
            going_on.push_back(members[i]);
        }
    }
    members.swap(going_on);
    return 0;
}

// As chain(), for the mean of the members' probabilities.
int32_t llama_nextn_drafter::group_chain(std::vector<llama_seq_id> members, int32_t n_max,
                                         llama_nextn_length & length) {
    const std::vector<llama_seq_id> all = members;
    std::vector<float>              p_mean; // by position
    int64_t                         t_start  = ggml_time_us();
    int32_t                         n_graphs = llama_nextn_n_graph_builds(ctx_dft);

    int32_t ret = group_catch_up(members);
    while (ret == 0 && !members.empty() && (int32_t) p_mean.size() < n_max &&
           (!params.adaptive || p_mean.empty() || length.go_on(p_mean))) {
        ret = group_step(members);

        float   sum = 0;
        int32_t n   = 0;
        for (const llama_seq_id seq_id : all) {
            const auto & p = seqs[seq_id].p;
            if (p.size() > p_mean.size()) {
                sum += p[p_mean.size()];
                n++;
            }
        }
        const int64_t t_end = ggml_time_us();
        if (ret == 0 && llama_nextn_n_graph_builds(ctx_dft) == n_graphs) {
            const double t = (double) (t_end - t_start);
            p_mean.empty() ? length.first_draft_took(t) : length.next_draft_took(t);
        }
        if (n == 0) {
            break;
        }
        p_mean.push_back(sum / (float) n);
        t_start  = t_end;
        n_graphs = llama_nextn_n_graph_builds(ctx_dft);
    }
    // to drop a drawn token after a look at it would bend its distribution
    const bool drawn =
        std::any_of(all.begin(), all.end(), [&](llama_seq_id id) { return seqs[id].drawer.has_value(); });
    group_sent = params.adaptive && !drawn ? length.keep(p_mean) : (int32_t) p_mean.size();
    return ret;
}

int32_t llama_nextn_drafter::draft_group(llama_nextn_draft_request * reqs, int32_t n_reqs) {
    std::vector<llama_seq_id> members;
    int32_t                   n_max = 0;

    for (int32_t i = 0; i < n_reqs; ++i) {
        auto & seq      = seqs[reqs[i].seq_id];
        reqs[i].n_draft = 0;
        prepare(reqs[i].seq_id, reqs[i].id_last);
        seq.in_group = true;
        seq.id_last  = reqs[i].id_last;
        seq.n_room   = std::min({seq.n_max, reqs[i].n_room, (int32_t) ctx_dft->n_ctx_seq() - n_past(reqs[i].seq_id)});
        if (seq.n_room > 0) {
            members.push_back(reqs[i].seq_id);
            n_max = std::max(n_max, seq.n_room);
        }
    }
    if ((int32_t) group_lengths.size() <= n_reqs) {
        group_lengths.resize(n_reqs + 1);
    }
    auto & length = group_lengths[n_reqs];
    length.set_n_max(n_max);
    group_size = n_reqs;
    group_sent = 0;
    group_open = true;
    if (n_max > 0 && params.adaptive) {
        n_max = std::min(n_max, length.plan());
    }
    if (n_max <= 0) {
        return 0;
    }
    const int32_t ret = group_chain(members, n_max, length);
    for (int32_t i = 0; ret == 0 && i < n_reqs; ++i) {
        const auto & seq = seqs[reqs[i].seq_id];
        const int    n   = std::min(group_sent, (int32_t) seq.drafted.size());
        reqs[i].n_draft  = !params.adaptive && !seq.drawer && n < seq.n_min ? 0 : n;
        std::copy_n(seq.drafted.data(), reqs[i].n_draft, reqs[i].out);
    }
    return ret > 0 ? -ret : ret;
}

// The first report of a round tells what all of it cost, each one how its own drafts fared.
void llama_nextn_drafter::accept_group(const sequence & seq, int32_t n_sent, int32_t n_accepted, double t_verify) {
    auto & length = group_lengths[group_size];
    if (group_open && t_verify > 0) {
        length.verify_took(group_sent + 1, t_verify);
    }
    group_open = false;
    length.saw(seq.p, n_sent, n_accepted);
}
