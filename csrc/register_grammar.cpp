#include "casters.h"
#include "errors.h"
#include "handles.h"
#include "json_casters.h"
#include "log.h"
#include "register.h"

#include "../src/llama-grammar.h"
#include "json-schema-to-grammar.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <pybind11/numpy.h>

namespace py = pybind11;

namespace nextn {

// llama.cpp's parser and its checks recurse: bounds that its stack bears in any thread.
static constexpr int max_depth = 200;     // of brackets
static constexpr size_t max_rules = 8192; // each alternative in brackets and each repetition is one, too

[[noreturn]] static void throw_at(const std::string & text, size_t at, const std::string & reason) {
    const std::string before = text.substr(0, at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t line_start = before.rfind('\n') == std::string::npos ? 0 : before.rfind('\n') + 1;
    const std::string rest = text.substr(at, std::min<size_t>(text.find('\n', at), at + 40) - at);
    throw Error(ErrorKind::Grammar, strf("the grammar is wrong at line %d, column %d: %s", static_cast<int>(line),
                                         static_cast<int>(at - line_start + 1), reason.c_str()) +
                                        (rest.empty() ? ", where the text ends" : ", but there is " + rest));
}

// Brackets that are open at once, outside of literals, classes and comments.
static void check_depth(const std::string & text) {
    int depth = 0;
    char closes = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (closes != 0) {
            if (c == '\\' && closes != '\n') {
                ++i;
            } else if (c == closes) {
                closes = 0;
            }
        } else if (c == '"' || c == '[' || c == '#') {
            closes = c == '"' ? '"' : c == '[' ? ']' : '\n';
        } else if (c == '(' && ++depth > max_depth) {
            throw_at(text, i, strf("at most %d brackets may be open", max_depth));
        } else if (c == ')') {
            --depth;
        }
    }
}

// The parser's own words end with the whole text from the wrong place on.
[[noreturn]] static void throw_parse_error(const std::string & text, size_t rule_start, const std::string & what) {
    const size_t cut = what.find(" at ");
    const std::string reason = what.substr(0, cut);
    if (cut != std::string::npos) {
        const size_t n_rest = what.size() - cut - 4;
        throw_at(text, text.size() - std::min(n_rest, text.size()), reason);
    }
    throw_at(text, what == "unexpected end of input" ? text.size() : rule_start, reason);
}

static bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
}

// Where a rule's name is used or defined first.
static size_t find_name(const std::string & text, const std::string & name) {
    for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
        const size_t end = at + name.size();
        if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end]))) {
            return at;
        }
    }
    return 0;
}

static void check_rules(const std::string & text, const std::string & root, const llama_grammar_parser & parser) {
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw_at(text, find_name(text, name), "the rule " + name + " is used and nowhere defined");
        }
    }
    if (parser.symbol_ids.count(root) == 0) {
        throw Error(ErrorKind::Grammar, "the grammar has no rule " + root + ", where a text would start");
    }
}

// Parse it here first: the engine's own call writes its complaints to stderr.
static llama_grammar_parser parse(const llama_vocab * vocab, const std::string & text, const std::string & root) {
    check_depth(text);
    llama_grammar_parser parser(vocab);
    const char * pos = text.c_str();
    while (*pos && std::strchr(" \t\r\n#", *pos)) {
        pos += *pos == '#' ? std::strcspn(pos, "\r\n") : 1;
    }
    while (*pos) {
        const auto rule_start = static_cast<size_t>(pos - text.c_str());
        try {
            pos = parser.parse_rule(pos);
        } catch (const std::exception & e) {
            throw_parse_error(text, rule_start, e.what());
        }
        if (parser.rules.size() > max_rules) {
            throw_at(text, rule_start, strf("the grammar comes to more than %zu rules", max_rules));
        }
    }
    check_rules(text, root, parser);
    return parser;
}

struct FreeGrammar {
    void operator()(llama_grammar * grammar) const { llama_grammar_free_impl(grammar); }
};

// How far a text has come in a grammar.
class Grammar {
  public:
    Grammar(const Model & model_ref, const std::string & text, const std::string & root) : model(model_ref.get()) {
        const llama_grammar_parser parser = parse(model->vocab, text, root);
        for (const auto & rule : parser.rules) {
            names_tokens = names_tokens || std::any_of(rule.begin(), rule.end(), [](const auto & element) {
                               return element.type == LLAMA_GRETYPE_TOKEN || element.type == LLAMA_GRETYPE_TOKEN_NOT;
                           });
        }
        const LogCapture log;
        state.reset(llama_grammar_init_impl(model->vocab, text.c_str(), root.c_str(), false, nullptr, 0, nullptr, 0));
        if (!state) {
            throw Error(ErrorKind::Grammar, "the grammar cannot be used: " + log.reason());
        }
    }

    Grammar(const Grammar & other) : model(other.model), names_tokens(other.names_tokens) {
        const std::lock_guard lock(other.mutex);
        state.reset(llama_grammar_clone_impl(*other.state));
    }

    std::unique_ptr<Grammar> clone() const { return std::make_unique<Grammar>(*this); }

    std::vector<uint8_t> allowed(const std::vector<int32_t> & ids) const {
        check_tokens(*model, ids);
        const std::lock_guard lock(mutex);
        return allowed_now(ids);
    }

    void accept(int32_t id) {
        check_tokens(*model, {id});
        const std::lock_guard lock(mutex);
        if (!allowed_now({id})[0]) {
            throw py::value_error(strf("token is %d, which the grammar does not allow here", id));
        }
        llama_grammar_accept_impl(*state, id);
    }

  private:
    std::vector<uint8_t> allowed_now(const std::vector<int32_t> & ids) const {
        std::vector<llama_token_data> data;
        data.reserve(ids.size());
        for (const int32_t id : ids) {
            data.push_back({id, can_be_seen(id) ? 0.0f : -INFINITY, 0.0f});
        }
        llama_token_data_array array = {data.data(), data.size(), -1, false};
        llama_grammar_apply_impl(*state, &array);
        std::vector<uint8_t> result;
        result.reserve(data.size());
        for (const auto & candidate : data) {
            result.push_back(candidate.logit == 0.0f);
        }
        return result;
    }

    // The engine matches a control token's name against the grammar, but the text does not show it.
    bool can_be_seen(int32_t id) const {
        return names_tokens || llama_vocab_is_eog(model->vocab, id) ||
               !(llama_vocab_get_attr(model->vocab, id) & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN));
    }

    std::shared_ptr<ModelHandle> model; // its vocabulary has the pieces
    std::unique_ptr<llama_grammar, FreeGrammar> state;
    bool names_tokens = false;
    mutable std::mutex mutex;
};

static py::array_t<bool> allowed(const Grammar & grammar, const Tokens & ids) {
    std::vector<uint8_t> result;
    {
        const ReleaseGil released;
        result = grammar.allowed(ids.values);
    }
    py::array_t<bool> out(static_cast<py::ssize_t>(result.size()));
    std::copy(result.begin(), result.end(), out.mutable_data());
    return out;
}

static std::string schema_to_grammar(const std::string & json) {
    try {
        return json_schema_to_grammar(common_json::parse(json), /* force_gbnf = */ true);
    } catch (const std::exception & e) {
        throw Error(ErrorKind::Grammar, std::string("the JSON schema cannot be used: ") + e.what());
    }
}

void register_grammar(py::module_ & m) {
    py::class_<Grammar> c(m, "Grammar", "How far a text has come in a grammar.");
    c.def(py::init<const Model &, const std::string &, const std::string &>(), py::arg("model"), py::arg("text"),
          py::arg("root"), nogil());
    c.def("clone", &Grammar::clone, nogil(), "A second one in the same place.");
    c.def("allowed", &allowed, py::arg("tokens"), "Which of these tokens may come next, bool [n_tokens].");
    c.def(
        "accept", [](Grammar & grammar, const Token & token) { grammar.accept(static_cast<int32_t>(token.value)); },
        py::arg("token"), nogil(), "Go on by a token that is allowed here.");
    m.def("json_schema_to_grammar", &schema_to_grammar, py::arg("json"), nogil(),
          "The grammar of the JSON texts that fit a schema, which is given as JSON text itself.");
}

} // namespace nextn
