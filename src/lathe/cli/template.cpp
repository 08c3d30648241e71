// lathe template: the rendered chat prompt of a model.
#include "lathe/base/json.h"
#include "lathe/base/log.h"
#include "lathe/cli/common.h"
#include "lathe/model/model_files.h"
#include "lathe/runtime/prompt.h"

namespace lathe::cli {

namespace {

Status render(const TemplateOptions& o) {
  LATHE_TRY(const std::filesystem::path folder, model_folder(o.model));
  LATHE_TRY(const ModelFiles files, ModelFiles::open(folder));
  LATHE_TRY(const Tokenizer tokenizer, files.tokenizer());
  Json request;
  if (o.messages == "-") {
    LATHE_TRY(const std::string text, read_stdin());
    LATHE_TRY(request, parse_json(text));
  } else {
    LATHE_TRY(request, read_json(o.messages));
  }
  std::optional<std::filesystem::path> override_file;
  if (o.chat_template) override_file = *o.chat_template;
  Result<ChatTemplate> opened = open_chat_template(tokenizer, override_file);
  if (!opened && !override_file && opened.error().code == Errc::kNotFound) {
    log_info("no chat template in the checkpoint: the form of DeepSeek-V2-Chat is used");
    opened = ChatTemplate::builtin(builtin_template_for(/*has_user_and_assistant_tokens=*/false));
  }
  LATHE_TRY(const ChatTemplate chat_template, std::move(opened));
  LATHE_TRY(const Json variables, template_variables(tokenizer, request));
  LATHE_TRY(const std::string text, render_chat(chat_template, variables));
  if (!o.ids && !o.json) return write_stdout(text);
  // The ids of the text as it stands, special tokens recognised wherever they are, as other programs give them; or
  // those that a conversation with strangers gets.
  std::vector<int32_t> ids = tokenizer.encode(text, AddedTokens::kRecognise);
  if (o.untrusted) {
    LATHE_TRY(ids, encode_chat(tokenizer, chat_template, variables));
  }
  const Json list = Json::list(std::vector<int64_t>(ids.begin(), ids.end()));
  if (!o.json) return write_stdout(list.dump() + "\n");
  Json out = Json::object();
  out.set("text", text);
  out.set("ids", list);
  return write_json(out);
}

}  // namespace

int run_template(const TemplateOptions& options) {
  const Status status = render(options);
  return status ? kExitOk : report(status.error());
}

}  // namespace lathe::cli
