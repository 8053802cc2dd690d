// Drafting for several sequences at once, as a server does: the rows of a step share one decode, and so do those of the
// verification, in which the target makes all sequences equally long (llama-nextn-padding.h).

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
int32_t llama_nextn_drafter::group_catch_up() {
    const std::vector<llama_seq_id> members = group_going();
    for (const llama_seq_id seq_id : members) {
        auto & seq = seqs[seq_id];
        ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true, -1);
        if ((int32_t) seq.tokens.size() > seq.n_max) {
            if (const int32_t ret = flush(seq_id)) { // of a prompt
                return ret;
            }
        }
    }
    int32_t ret = group_fill(members, /*padded =*/true);
    if (ret > 0) { // no room
        ret = group_fill(members, /*padded =*/false);
    }
    for (const llama_seq_id seq_id : members) {
        auto & seq = seqs[seq_id];
        if (ret == 0) {
            seq.n_true += (llama_pos) seq.tokens.size();
            seq.tokens.clear();
            seq.hidden.clear();
        }
        ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true, -1);
    }
    return ret;
}

// Compute the rows that wait. Sequences with different numbers of them would be computed one after the other, so all
// get as many as the one with the most; the caller takes those too many out again.
int32_t llama_nextn_drafter::group_fill(const std::vector<llama_seq_id> & members, bool padded) {
    size_t longest = 0;
    for (const llama_seq_id seq_id : members) {
        longest = std::max(longest, seqs[seq_id].tokens.size());
    }
    if (longest * members.size() > ctx_dft->n_batch()) {
        padded = false;
    }
    rows all;
    for (const llama_seq_id seq_id : members) {
        const auto &  seq  = seqs[seq_id];
        const int32_t n    = (int32_t) seq.tokens.size();
        const int32_t room = (int32_t) ctx_dft->n_ctx_seq() - seq.n_true;
        for (int32_t i = 0; i < (padded ? std::min((int32_t) longest, room) : n); ++i) {
            const bool waits = i < n;
            all.add(waits ? seq.tokens[i] : seq.id_last, waits ? seq.hidden.data() + i * n_embd : seq.carry.data(),
                    n_embd, seq.n_true + i, seq_id, false);
        }
    }
    return all.decode(*this, false);
}

// One more token for each member that is going; those whose draft ends with it are not going any more.
int32_t llama_nextn_drafter::group_step() {
    const std::vector<llama_seq_id> members = group_going();
    rows                            step;
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
    for (int32_t i = 0; i < (int32_t) members.size(); ++i) {
        auto &           seq    = seqs[members[i]];
        auto &           member = group[seq.in_group];
        llama_nextn_best best;
        if (!read_best(seq, i, best)) {
            return -1;
        }
        if (seq.n_steps++ == 0) {
            seq.n_true++;
            seq.ahead = seq.id_last;
        }
        member.going = take(seq, best) && (int32_t) seq.drafted.size() < member.n_max;
        member.p     = seq.p;
        if (member.going) {
            const float * row = ctx_dft->nextn.get_hidden(i);
            seq.chain.assign(row, row + n_embd); // the next decode overwrites it
        }
    }
    return 0;
}

// As chain(), for all members together. Who takes part changes, and with that the shape of a step: the building of
// graphs belongs to its cost.
int32_t llama_nextn_drafter::group_chain(llama_nextn_group_length & length) {
    int64_t t_start = ggml_time_us();
    int32_t ret     = group_catch_up();
    for (int32_t n_steps = 0; ret == 0; ++n_steps) {
        if ((n_steps > 0 && params.adaptive && !length.go_on(group)) || group_going().empty()) {
            break;
        }
        ret = group_step();

        const int64_t t_end = ggml_time_us();
        if (ret == 0) {
            const double t = (double) (t_end - t_start);
            n_steps == 0 ? length.costs.first_draft_took(t) : length.costs.next_draft_took(t);
        }
        t_start = t_end;
    }
    return ret;
}

std::vector<llama_seq_id> llama_nextn_drafter::group_going() const {
    std::vector<llama_seq_id> result;
    for (size_t i = 0; i < group.size(); ++i) {
        if (group[i].going) {
            result.push_back(group_ids[i]);
        }
    }
    return result;
}

int32_t llama_nextn_drafter::draft_group(llama_nextn_draft_request * reqs, int32_t n_reqs) {
    // an answer depends on nobody else's while all rows of a round have the bits of one token
    const int32_t n_exact = std::max(0, llama_nextn_padding::max_tokens / n_reqs - 1);
    const int32_t n_most  = params.adaptive ? std::min(params.n_max, n_exact) : params.n_max;
    bool          drafts  = false;
    group.clear();
    group_ids.clear();
    for (int32_t i = 0; i < n_reqs; ++i) {
        auto & seq      = seqs[reqs[i].seq_id];
        reqs[i].n_draft = 0;
        prepare(reqs[i].seq_id, reqs[i].id_last);
        seq.in_group = i;
        seq.id_last  = reqs[i].id_last;

        llama_nextn_group_length::member member;
        member.acceptance = &seq.length.acceptance;
        member.probe      = &seq.length.probe;
        member.drawn      = seq.drawer.has_value();
        member.n_max      = std::max(0, std::min({n_most, seq.n_max, reqs[i].n_room,
                                                  (int32_t) ctx_dft->n_ctx_seq() - (int32_t) n_past(reqs[i].seq_id)}));
        seq.length.acceptance.next_round();
        member.going = member.n_max > 0;
        drafts       = drafts || member.going;
        group.push_back(member);
        group_ids.push_back(reqs[i].seq_id);
    }
    while ((int32_t) group_lengths.size() <= n_reqs) {
        group_lengths.emplace_back((int) group_lengths.size());
    }
    auto & length = group_lengths[n_reqs];
    group_open    = true;
    if (drafts && params.adaptive) {
        drafts = length.plan(group);
    }
    if (!drafts) {
        return 0;
    }
    if (const int32_t ret = group_chain(length)) {
        return ret > 0 ? -ret : ret;
    }
    if (params.adaptive) {
        length.keep(group);
    }
    for (int32_t i = 0; i < n_reqs; ++i) {
        const auto & seq    = seqs[reqs[i].seq_id];
        auto &       member = group[i];
        if (!params.adaptive) {
            const int32_t n = (int32_t) seq.drafted.size();
            member.n        = !member.drawn && n < seq.n_min ? 0 : n;
        }
        reqs[i].n_draft = member.n;
        std::copy_n(seq.drafted.data(), member.n, reqs[i].out);
    }
    return 0;
}

// The first report of a round tells what all of it cost, each one how its own drafts fared.
void llama_nextn_drafter::accept_group(llama_seq_id seq_id, int32_t n_sent, int32_t n_accepted, double t_verify) {
    auto & seq = seqs[seq_id];
    seq.length.acceptance.saw(seq.p, n_sent, n_accepted);
    if (seq.in_group >= (int32_t) group_ids.size() || group_ids[seq.in_group] != seq_id) {
        return; // of an earlier round than the last one
    }
    auto & length = group_lengths[group.size()];
    if (group_open && t_verify > 0) {
        length.verify_took(group, t_verify);
    }
    group_open = false;
    length.tried(group[seq.in_group], n_accepted);
}
