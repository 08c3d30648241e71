#include "lathe/tokenizer/chat_template_builtin.h"

namespace lathe {
namespace {

// The first generation: labels in plain text, every message where it stands.
constexpr std::string_view kV2 = R"jinja(
{{- bos_token }}
{%- for message in messages %}
  {%- set content = message['content'] if message['content'] is string else '' %}
  {%- if message['role'] == 'system' or message['role'] == 'developer' %}
    {{- content + '\n\n' }}
  {%- elif message['role'] == 'user' %}
    {{- 'User: ' + content + '\n\n' }}
  {%- elif message['role'] == 'assistant' %}
    {{- 'Assistant: ' + content + eos_token }}
  {%- else %}
    {{- raise_exception('this model has no form for messages of role ' ~ message['role']) }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- 'Assistant:' }}
{%- endif %})jinja";

// From V2.5 on: special tokens, system messages in front, tool calls and their results.
constexpr std::string_view kV3 = R"jinja(
{%- set ns = namespace(system='', in_outputs=false) %}
{%- for message in messages %}
  {%- if message['role'] == 'system' or message['role'] == 'developer' %}
    {%- set ns.system = ns.system ~ ('\n\n' if ns.system) ~ (message['content'] or '') %}
  {%- endif %}
{%- endfor %}
{{- bos_token ~ ns.system }}
{%- for message in messages %}
  {%- set role = message['role'] %}
  {%- set content = message['content'] if message['content'] is string else '' %}
  {%- if role == 'tool' %}
    {{- '' if ns.in_outputs else '<｜tool▁outputs▁begin｜>' }}
    {{- '<｜tool▁output▁begin｜>' + content + '<｜tool▁output▁end｜>' }}
    {%- set ns.in_outputs = true %}
  {%- elif role == 'user' or role == 'assistant' %}
    {%- set after_outputs = ns.in_outputs %}
    {{- '<｜tool▁outputs▁end｜>' if after_outputs }}
    {%- set ns.in_outputs = false %}
    {%- if role == 'user' %}
      {{- '<｜User｜>' + content }}
    {%- else %}
      {{- '' if after_outputs else '<｜Assistant｜>' }}
      {{- content }}
      {%- if message['tool_calls'] %}
        {{- '<｜tool▁calls▁begin｜>' }}
        {%- for call in message['tool_calls'] %}
          {%- set function = call['function'] %}
          {%- set arguments = function['arguments'] %}
          {{- '' if loop.first else '\n' }}
          {{- '<｜tool▁call▁begin｜>' ~ (call['type'] or 'function') ~ '<｜tool▁sep｜>' ~ function['name'] }}
          {{- '\n```json\n' ~ (arguments if arguments is string else arguments | tojson) ~ '\n```' }}
          {{- '<｜tool▁call▁end｜>' }}
        {%- endfor %}
        {{- '<｜tool▁calls▁end｜>' }}
      {%- endif %}
      {{- eos_token }}
    {%- endif %}
  {%- elif role != 'system' and role != 'developer' %}
    {{- raise_exception('this model has no form for messages of role ' ~ role) }}
  {%- endif %}
{%- endfor %}
{%- if ns.in_outputs %}
  {{- '<｜tool▁outputs▁end｜>' }}
{%- elif add_generation_prompt %}
  {{- '<｜Assistant｜>' }}
{%- endif %})jinja";

}  // namespace

std::string_view builtin_template_source(std::string_view name) {
  if (name == "v2") return kV2;
  if (name == "v3") return kV3;
  return {};
}

}  // namespace lathe
