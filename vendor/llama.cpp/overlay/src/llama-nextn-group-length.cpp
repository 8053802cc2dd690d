#include "llama-nextn-group-length.h"

#include <algorithm>
#include <cmath>

// Of a row that is only there to make its sequence as long as the others (see llama-nextn-padding.h), in rows.
static constexpr double padding_cost = 0.5;

// By how much drafting has to promise more than a round without: what is not measured (a graph that is built, a prompt
// that joins) comes with it.
static constexpr double least_gain = 1.02;

// A guess for a decode of one token, and with it for a decode of several.
static double guess_per_token(int n_members) {
    constexpr double of_one = llama_nextn_costs::guess_per_token;
    return of_one / (1 + of_one * (n_members - 1));
}

llama_nextn_group_length::llama_nextn_group_length(int n_members)
    : costs(n_members * llama_nextn_acceptance::k_max + 1, guess_per_token(n_members)), n_members(n_members) {}

// Of a round in which n_rows drafted tokens are verified, in rows more than those of a round without drafts, and 1.
int llama_nextn_group_length::width(int n_rows, int longest) const {
    return 1 + n_rows + (int) std::lround(padding_cost * (n_members * longest - n_rows));
}

namespace {

struct row {
    double all; // probability that this token and all before it are accepted
    int    member;
    int    position; // from 1
    bool   forced;
};

bool is_better(const row & a, const row & b) {
    return a.forced != b.forced ? a.forced : a.all > b.all;
}

} // namespace

// Rows of all members, the best first; rows of one member stay in order.
static std::vector<row> get_rows(const std::vector<llama_nextn_group_length::member> & members, bool drafted_only,
                                 bool average) {
    std::vector<row> rows;
    for (size_t i = 0; i < members.size(); ++i) {
        const auto & m = members[i];
        const int    j = average ? 0 : (int) m.p.size();

        double all = 1;
        for (int k = 1; k <= (drafted_only || !(m.going || average) ? j : m.n_max); ++k) {
            all *= k <= j ? m.acceptance->of(k, m.p[k - 1]) : m.acceptance->ahead(k);
            const bool forced = !average && ((k <= j && m.drawn) || (k == 1 && m.probe->is_trying()));
            rows.push_back({all, (int) i, k, forced});
        }
    }
    std::stable_sort(rows.begin(), rows.end(), is_better);
    return rows;
}

// r: tokens per time of the best lengths under average acceptance.
double llama_nextn_group_length::rate(const std::vector<member> & members) const {
    return std::max(n_members / costs.verify(1), drafting_rate(members));
}

// Of the best lengths that are not all 0.
double llama_nextn_group_length::drafting_rate(const std::vector<member> & members) const {
    const std::vector<row> rows = get_rows(members, false, /*average =*/true);

    double best    = 0;
    double e       = n_members;
    int    longest = 0;
    for (size_t n = 0; n < rows.size(); ++n) {
        e += rows[n].all;
        longest = std::max(longest, rows[n].position);
        best    = std::max(best, e / (costs.verify(width((int) n + 1, longest)) + costs.draft(longest)));
    }
    return best;
}

// Give each member the length (n) with which the sum of tokens less r times the time is largest; steps that were made
// are sunk. A long draft of one member makes padding of the others, so each longest one is tried.
void llama_nextn_group_length::divide(std::vector<member> & members, double r, bool drafted_only) const {
    const std::vector<row> rows = get_rows(members, drafted_only, false);

    int n_steps = 0, n_forced = 0, most = 0;
    for (const member & m : members) {
        n_steps = std::max(n_steps, (int) m.p.size());
    }
    for (const row & x : rows) {
        most     = std::max(most, x.position);
        n_forced = std::max(n_forced, x.forced ? x.position : 0);
    }
    double best     = -INFINITY;
    int    best_cap = 0, best_rows = 0;
    for (int cap = n_forced; cap <= most; ++cap) {
        double e = n_members;
        int    n = 0, longest = 0;
        for (size_t i = 0; i <= rows.size(); ++i) {
            if (i == rows.size() || !rows[i].forced) {
                const double to_draft = longest > n_steps ? costs.draft(longest) - costs.draft(n_steps) : 0;
                const double value    = e - r * (costs.verify(width(n, longest)) + to_draft);
                if (value > best) {
                    best      = value;
                    best_cap  = cap;
                    best_rows = n;
                }
            }
            if (i < rows.size() && rows[i].position <= cap) {
                e += rows[i].all;
                longest = std::max(longest, rows[i].position);
                n++;
            }
        }
    }
    for (member & m : members) {
        m.n = 0;
    }
    for (size_t i = 0; i < rows.size() && best_rows > 0; ++i) {
        if (rows[i].position <= best_cap) {
            members[rows[i].member].n++;
            best_rows--;
        }
    }
}

bool llama_nextn_group_length::plan(std::vector<member> & members) {
    costs.next_round();
    if (plain_rounds.is_due(costs, plain_rounds.is_trying() ? n_members / drafting_rate(members) : 0)) {
        return false;
    }
    for (member & m : members) {
        m.going = m.n_max > 0;
        m.n     = 0;
    }
    const double r = rate(members);
    if (r >= least_gain * n_members / costs.verify(1)) {
        divide(members, r, false);
    }
    bool anyone = false, tries = false;
    for (member & m : members) {
        m.going = m.n > 0;
        anyone  = anyone || m.going;
        if (m.going) {
            m.probe->drafts();
        } else if (m.n_max > 0) {
            tries = m.probe->off() || tries;
        }
    }
    if (anyone || tries) {
        costs.run_ends();
    }
    // a try costs most where nobody else drafts: those that are off try together
    for (member & m : members) {
        if (tries && !m.going && m.n_max > 0) {
            m.probe->try_now();
            m.going = true;
        }
    }
    if (!anyone && !tries) {
        plain_rounds.had_one();
    }
    return anyone || tries;
}

bool llama_nextn_group_length::go_on(std::vector<member> & members) const {
    divide(members, rate(members), false);
    bool anyone = false;
    for (member & m : members) {
        m.going = m.going && !m.probe->is_trying() && m.n > (int) m.p.size();
        anyone  = anyone || m.going;
    }
    return anyone;
}

void llama_nextn_group_length::keep(std::vector<member> & members) const {
    divide(members, rate(members), true);
}

void llama_nextn_group_length::tried(const member & m, int n_accepted) const {
    if (!m.probe->is_trying()) {
        return;
    }
    const double plain   = costs.verify(1);
    const auto   cost_of = [&](int k) {
        return costs.verify(width(n_members * k, k)) + costs.draft(k);
    };
    m.probe->tried(n_accepted > 0, m.probe->needed_acceptance(m.n_max, plain, 0, cost_of), (cost_of(1) - plain) / plain,
                   costs.beside_a_try() / plain);
}

void llama_nextn_group_length::verify_took(const std::vector<member> & members, double t) {
    int n_rows = 0, longest = 0;
    for (const member & m : members) {
        n_rows += m.n;
        longest = std::max(longest, m.n);
    }
    costs.verify_took(width(n_rows, longest), t);
}
