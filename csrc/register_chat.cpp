#include "errors.h"
#include "handles.h"
#include "json_casters.h"
#include "log.h"
#include "register.h"

#include "chat.h" // llama.cpp's template engine

#include <optional>
#include <pybind11/stl.h>

namespace py = pybind11;

namespace nextn {

std::string to_json(const char * name, py::handle source) {
    try {
        return py::module_::import("json").attr("dumps")(source).cast<std::string>();
    } catch (py::error_already_set & e) {
        if (!e.matches(PyExc_TypeError) && !e.matches(PyExc_ValueError)) {
            throw;
        }
        throw py::type_error(std::string(name) +
                             " cannot be written as JSON: " + py::str(e.value()).cast<std::string>());
    }
}

// What a template makes of messages.
struct Prompt {
    std::string prompt;
    std::string generation_prompt; // its end: what the assistant's answer begins with
    std::vector<std::string> stops;
    std::vector<std::string> preserved_tokens;
    std::string thinking_start;
    std::vector<std::string> thinking_end;
    std::string grammar;
    bool grammar_lazy = false;
};

// A compiled chat template. Nothing changes it, so any thread may apply it.
class ChatTemplate {
  public:
    ChatTemplate(const Model & model_ref, const std::optional<std::string> & source);

    Prompt render(const Messages & messages, bool add_generation_prompt, const std::optional<Tools> & tools,
                  const std::optional<TemplateKwargs> & kwargs, bool enable_thinking) const;

    std::string apply(const Messages & messages, bool add_generation_prompt, const std::optional<Tools> & tools,
                      const std::optional<TemplateKwargs> & kwargs, bool enable_thinking) const {
        return render(messages, add_generation_prompt, tools, kwargs, enable_thinking).prompt;
    }

    std::string source() const { return common_chat_templates_source(templates.get()); }
    std::map<std::string, bool> capabilities() const { return common_chat_templates_get_caps(templates.get()); }
    bool supports_thinking() const { return common_chat_templates_support_enable_thinking(templates.get()); }

  private:
    std::shared_ptr<ModelHandle> model; // its vocabulary has the special tokens
    common_chat_templates_ptr templates;
};

ChatTemplate::ChatTemplate(const Model & model_ref, const std::optional<std::string> & source)
    : model(model_ref.get()) {
    const char * own = llama_model_chat_template(model->model, nullptr);
    if (!source && !own) {
        throw Error(ErrorKind::ChatTemplate,
                    model->path + ": has no chat template; pass a prompt as text instead of messages");
    }
    try {
        // parsed once more for the reason of a failure: the call after it cuts that off
        const common_chat_template parsed(source ? *source : own, "", "");
        templates = common_chat_templates_init(model->model, source.value_or(""));
    } catch (const std::exception & e) {
        throw Error(ErrorKind::ChatTemplate, model->path + ": the chat template cannot be compiled: " + e.what());
    }
}

Prompt ChatTemplate::render(const Messages & messages, bool add_generation_prompt, const std::optional<Tools> & tools,
                            const std::optional<TemplateKwargs> & kwargs, bool enable_thinking) const {
    model->check();
    try {
        common_chat_templates_inputs inputs;
        inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(messages.json));
        inputs.tools = common_chat_tools_parse_oaicompat(common_json::parse(tools.value_or(Tools()).json));
        inputs.chat_template_kwargs = kwargs.value_or(TemplateKwargs()).json;
        inputs.add_generation_prompt = add_generation_prompt;
        inputs.enable_thinking = enable_thinking;
        const common_chat_params params = common_chat_templates_apply(templates.get(), inputs);
        return {params.prompt,           params.generation_prompt,  params.additional_stops,
                params.preserved_tokens, params.thinking_start_tag, params.thinking_end_tags,
                params.grammar,          params.grammar_lazy};
    } catch (const std::exception & e) {
        throw Error(ErrorKind::ChatTemplate, std::string("the chat template refuses the messages: ") + e.what());
    }
}

static void register_prompt(py::module_ & m) {
    py::class_<Prompt> c(m, "ChatPrompt", "What a chat template makes of messages.");
    c.def_readonly("prompt", &Prompt::prompt);
    c.def_readonly("generation_prompt", &Prompt::generation_prompt,
                   "Its end: what the assistant's answer begins with.");
    c.def_readonly("stops", &Prompt::stops);
    c.def_readonly("preserved_tokens", &Prompt::preserved_tokens);
    c.def_readonly("thinking_start", &Prompt::thinking_start);
    c.def_readonly("thinking_end", &Prompt::thinking_end);
    c.def_readonly("grammar", &Prompt::grammar);
    c.def_readonly("grammar_lazy", &Prompt::grammar_lazy);
}

void register_chat(py::module_ & m) {
    register_prompt(m);
    py::class_<ChatTemplate> c(m, "ChatTemplate", "A chat template, the model's own or a given one, compiled.");
    c.def(py::init<const Model &, const std::optional<std::string> &>(), py::arg("model"),
          py::arg("source") = py::none(), nogil());
    const auto def = [&](const char * name, auto method, const char * doc) {
        c.def(name, method, py::arg("messages"), py::kw_only(), py::arg("add_generation_prompt") = true,
              py::arg("tools") = py::none(), py::arg("chat_template_kwargs") = py::none(),
              py::arg("enable_thinking") = true, nogil(), doc);
    };
    def("apply", &ChatTemplate::apply, "The prompt of messages: mappings with role and content.");
    def("render", &ChatTemplate::render, "The prompt of messages with all that the template says about it.");
    c.def_property_readonly("source", &ChatTemplate::source);
    c.def_property_readonly("capabilities", &ChatTemplate::capabilities);
    c.def_property_readonly("supports_thinking", &ChatTemplate::supports_thinking);
}

} // namespace nextn
