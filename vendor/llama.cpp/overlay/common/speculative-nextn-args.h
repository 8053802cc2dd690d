#pragma once

// The command line of `--spec-type nextn`. Included by arg.cpp.

#include "arg.h"
#include "speculative-nextn.h"

#include <fstream>

// The token ids in a text file, one per line.
static llama_tokens common_nextn_read_ids(const std::string & path) {
    std::ifstream file(path);
    if (!file) {
        throw std::invalid_argument("it is auto, full, a number of ids, or a file of them, and " + path +
                                    " cannot be read");
    }
    llama_tokens ids;
    for (int64_t id; file >> id;) {
        if (id < 0 || id > INT32_MAX) {
            throw std::invalid_argument(path + " holds " + std::to_string(id) + ", which is no token id");
        }
        ids.push_back((llama_token) id);
    }
    if (!file.eof() || ids.empty()) {
        throw std::invalid_argument(path + " is no text file with one token id per line");
    }
    return ids;
}

static void common_nextn_set_vocab(common_params_speculative_draft & draft, const std::string & value) {
    draft.vocab_ids.clear();
    if (value == "auto") {
        draft.n_vocab = 0;
    } else if (value == "full") {
        draft.n_vocab = -1;
    } else if (!value.empty() && value.size() <= 9 && value.find_first_not_of("0123456789") == std::string::npos) {
        draft.n_vocab = std::stoi(value);
        if (draft.n_vocab < 256) {
            throw std::invalid_argument("at least 256 ids are scored, not " + value);
        }
    } else {
        draft.vocab_ids = common_nextn_read_ids(value);
    }
}

template <class AddOpt>
static void common_speculative_add_nextn_options(AddOpt add_opt) {
    const auto programs = {LLAMA_EXAMPLE_SPECULATIVE, LLAMA_EXAMPLE_SERVER, LLAMA_EXAMPLE_CLI};

    add_opt(common_arg({"--spec-draft-adaptive"}, {"--no-spec-draft-adaptive"},
                       "nextn: choose the length of each draft by what pays, up to --spec-draft-n-max (default: "
                       "enabled)",
                       [](common_params & params, bool value) { params.speculative.draft.adaptive = value; })
                .set_spec()
                .set_examples(programs)
                .set_env("LLAMA_ARG_SPEC_DRAFT_ADAPTIVE"));
    add_opt(common_arg({"--spec-draft-vocab"}, "V",
                       "nextn: tokens that the head scores: auto, full, the first V ids, or a file with one id per "
                       "line (default: auto)",
                       [](common_params & params, const std::string & value) {
                           common_nextn_set_vocab(params.speculative.draft, value);
                       })
                .set_spec()
                .set_examples(programs)
                .set_env("LLAMA_ARG_SPEC_DRAFT_VOCAB"));
}
