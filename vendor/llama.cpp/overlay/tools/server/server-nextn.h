#pragma once

// What a request says about drafting, and what its answer says.

#include "json.h"
#include "speculative-nextn.h"

#include <algorithm>
#include <stdexcept>
#include <string>

// "speculative": {"type", "n_max", "n_min", "p_min", "accept"} of a request, over the server's own setting. Throws
// std::invalid_argument, which the server answers with status 400.
inline void server_nextn_parse(const common_json & data, common_params_speculative & params) {
    const char * served = common_speculative_is_nextn(params.types)    ? "nextn"
                          : common_speculative_uses_head(params.types) ? "draft-mtp"
                                                                       : "none";

    auto & draft = params.draft;
    if (!data.is_object()) {
        throw std::invalid_argument("must be an object with any of type, n_max, n_min, p_min, accept");
    }
    const auto number = [](const common_json & value, const std::string & name, double low, double high, bool whole) {
        const bool fits = whole ? value.is_number_integer() : value.is_number();
        if (!fits || !(low <= value.get<double>() && value.get<double>() <= high)) {
            throw std::invalid_argument(name + " must be " + (whole ? "a whole number" : "a number") + " from " +
                                        std::to_string((int) low) + " to " + std::to_string((int) high));
        }
        return value.get<double>();
    };
    const int n_max_served = draft.n_max;
    bool      off          = false;
    for (const auto & [key, value] : data.items()) {
        if (value.is_null()) {
            continue;
        }
        if (key == "n_max") {
            draft.n_max = std::min(n_max_served, (int) number(value, key, 0, common_speculative_phases::k_max, true));
        } else if (key == "n_min") {
            draft.n_min = (int) number(value, key, 0, common_speculative_phases::k_max, true);
        } else if (key == "p_min") {
            draft.p_min = (float) number(value, key, 0, 1, false);
        } else if (key == "accept") {
            draft.accept = value == "auto"    ? COMMON_SPECULATIVE_ACCEPT_AUTO
                           : value == "match" ? COMMON_SPECULATIVE_ACCEPT_MATCH
                           : value == "ratio" ? COMMON_SPECULATIVE_ACCEPT_RATIO
                                              : throw std::invalid_argument("accept must be auto, match or ratio");
        } else if (key != "type") {
            throw std::invalid_argument("has no field '" + key + "': there are type, n_max, n_min, p_min, accept");
        } else if (!value.is_string() || (value != "nextn" && value != "draft-mtp" && value != "none")) {
            throw std::invalid_argument("type must be nextn, draft-mtp or none");
        } else if (value == "none") {
            off = true;
        } else if (value != served) {
            throw std::invalid_argument("type " + value.get<std::string>() + " is not what this server drafts with: " +
                                        "it was started with --spec-type " + served);
        }
    }
    if (off) {
        draft.n_max = 0;
    }
    if (data.contains("n_min") && draft.n_max > 0 && draft.n_min > draft.n_max) {
        throw std::invalid_argument("n_min is more than n_max, the longest draft");
    }
    draft.n_min = std::min(draft.n_min, draft.n_max);
}

// The part of an answer's timings that tells of drafting; times in milliseconds.
inline void server_nextn_timings(const common_speculative_phases & phases, int64_t n_rounds, int64_t n_drafted,
                                 int64_t n_accepted, common_json & timings) {
    if (!phases.active) {
        return;
    }
    const auto by_position = [](const auto & counts) {
        common_json result = common_json::array();
        for (const int64_t n : counts) {
            if (n == 0) {
                break; // nothing further down either
            }
            result.push_back(n);
        }
        return result;
    };
    timings["draft_n"]               = n_drafted;
    timings["draft_n_accepted"]      = n_accepted;
    timings["n_rounds"]              = n_rounds;
    timings["mean_accepted_len"]     = n_rounds > 0 ? 1.0 + (double) n_accepted / (double) n_rounds : 1.0;
    timings["drafted_per_position"]  = by_position(phases.n_drafted_per_pos);
    timings["accepted_per_position"] = by_position(phases.n_accepted_per_pos);
    timings["draft_ms"]              = (double) phases.t_draft_us / 1000.0;
    timings["verify_ms"]             = (double) phases.t_verify_us / 1000.0;
}
