#!/usr/bin/env python3
"""Writes tests/golden/jinja/cases.json: template snippets and what jinja2 makes of them.

The environment is the one transformers renders chat templates in: an immutable sandbox with trim_blocks, lstrip_blocks
and loop controls, tojson without HTML escaping, raise_exception and strftime_now. A case is
{name, source, variables?, expected} or {name, source, variables?, error: true} where jinja2 raises.

Usage: tools/golden/make_jinja_cases.py [OUTPUT]
"""

import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "  Hi there\n"},
    {"role": "assistant", "content": "<think>hm</think>Hello", "tool_calls": None},
    {"role": "user", "content": "\u4f60\u597d \U0001f600 \u00e9"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a \"city\" & <more>",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
                "required": ["city"],
                "items": [1, 2.5, None, True],
            },
        },
    }
]
COMMON = {"messages": MESSAGES, "tools": TOOLS, "bos_token": "<s>", "eos_token": "</s>"}

# name: source; every snippet sees COMMON.
SNIPPETS = {
    # ---- white space
    "text_only": "plain text\n",
    "trailing_newlines": "a\n\n",
    "crlf": "a\r\nb\rc\r\n",
    "trim_block_newline": "{% if true %}\nx\n{% endif %}\ny",
    "lstrip_block": "a\n   {% if true %}\n  b\n   {% endif %}\nc",
    "lstrip_not_for_output": "a\n   {{ 1 }}\nb",
    "lstrip_needs_line_start": "a  {% if true %} b {% endif %} c",
    "lstrip_after_output": "{{ 1 }}  {% if true %}x{% endif %}",
    "minus_both": "a  \n {%- if true -%}  \n b  \n {%- endif -%} \n c",
    "plus_keeps": "a\n   {%+ if true +%}\nb{% endif %}",
    "plus_end_output_block": "{% if true +%}\n  x{% endif +%}\ny",
    "minus_output": "a  {{- 'x' -}}  b",
    "minus_output_newlines": "a \n\n {{- 'x' -}} \n\n b",
    "comment": "a{# hidden {{ 1 }} #}b",
    "comment_trim": "a\n  {# c #}\nb",
    "comment_minus": "a  {#- c -#}  b",
    "comment_multiline": "a{# one\ntwo #}\nb",
    "raw": "{% raw %}{{ x }} {% if %}{% endraw %}!",
    "raw_trim": "a\n{% raw %}\n{{ x }}\n{% endraw %}\nb",
    "raw_minus": "a {%- raw -%}  {{ x }}  {%- endraw -%} b",
    "two_tags_one_line": "{% set a = 1 %}{% set b = 2 %}\n{{ a }}{{ b }}",
    "indent_before_two_tags": "  {% set a = 1 %}  {% set b = 2 %}\n{{ a + b }}",
    "unicode_space_strip": "a\u00a0\u2003{{- 1 -}}\u3000b",
    "brace_literals": "{ {% if true %}}{% endif %} {{ '}}' }} {{ '{{' }}",
    "lone_braces": "a { b } c {",
    # ---- literals and printing
    "ints": "{{ 1 }} {{ -7 }} {{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 00 }}",
    "floats": "{{ 1.0 }} {{ 2.5e3 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 123456789.123 }} {{ 1e100 }} {{ 5e-324 }}",
    "float_limits": "{{ 1e15 }} {{ 999999999999999.9 }} {{ 0.0001 }} {{ 0.00012345 }} {{ -0.0 }} {{ 1.5e-7 }} {{ 1E5 }}",
    "bools_none": "{{ true }} {{ True }} {{ false }} {{ False }} {{ none }} {{ None }}",
    "strings": "{{ 'a' }}{{ \"b\" }}{{ 'it\\'s' }}{{ \"q\\\"q\" }}",
    "string_escapes": "{{ 'a\\n\\tb\\\\c\\x41\\u00e9\\101\\q' }}",
    "string_adjacent": "{{ 'a' 'b' \"c\" }}",
    "string_multiline": "{{ 'a\nb' }}",
    "string_continued": "{{ 'a\\\nb' }}",
    "list_repr": "{{ [1, 'two', 3.0, none, true, ['x']] }}",
    "tuple_repr": "{{ (1, 2) }} {{ (1,) }} {{ () }} {{ 1, 2 }}",
    "dict_repr": "{{ {'a': 1, 'b': [2], 3: none} }} {{ {} }}",
    "repr_quotes": "{{ ['it\\'s', 'say \"x\"', 'both \\' and \"'] }}",
    "repr_escapes": "{{ ['a\\n\\t\\r\\\\', '\\x00\\x7f', '\\u00e9\\u200b\\u3000', '\U0001f600'] }}",
    "trailing_commas": "{{ [1, 2,] }} {{ {'a': 1,} }} {{ (1, 2,) }}",
    "dict_duplicate_keys": "{{ {'a': 1, 'a': 2, 1: 'x', 1.0: 'y', true: 'z'} }}",
    "message_repr": "{{ messages[0] }}",
    # ---- arithmetic
    "add_sub_mul": "{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }}",
    "division": "{{ 7 / 2 }} {{ 6 / 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 // -2 }} {{ 7.5 // 2 }}",
    "modulo": "{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }}",
    "power": "{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2.0 ** 0.5 }} {{ 7 ** 0 }}",
    "bool_arithmetic": "{{ true + 1 }} {{ true * 3 }} {{ -true }} {{ +true }}",
    "precedence": "{{ 'a' + 2 ~ 3 + 'b' }} {{ 2 * 3 ~ 4 }} {{ -3 | abs }} {{ 1 + -2 | abs }}",
    "concat_binds_tighter": "{{ 1 + 2 ~ 3 }}",
    "string_ops": "{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 2 * 'x' }} {{ 'a' * -1 }}|",
    "list_ops": "{{ [1] + [2, 3] }} {{ [1, 2] * 2 }} {{ (1,) + (2,) }}",
    "concat": "{{ 'a' ~ 1 ~ none ~ 2.0 ~ [1] ~ nothing ~ true }}",
    "division_by_zero": "{{ 1 / 0 }}",
    "add_mismatch": "{{ 'a' + 1 }}",
    "add_none": "{{ 'a' + none }}",
    "add_list_tuple": "{{ [1] + (2,) }}",
    "negate_string": "{{ -'a' }}",
    # ---- comparison and logic
    "compare_numbers": "{{ 1 < 2 }} {{ 2 <= 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 3 > 4 }} {{ 1 != 2 }} {{ 2 >= 3 }}",
    "compare_chain": "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1 != 2 }}",
    "compare_strings": "{{ 'a' < 'b' }} {{ 'B' < 'a' }} {{ 'a' < 'aa' }} {{ '\u00e9' > 'z' }} {{ 'a' == 'a' }}",
    "compare_lists": "{{ [1, 2] < [1, 3] }} {{ [1] == [1.0] }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }}",
    "compare_types": "{{ 1 == '1' }} {{ none == false }} {{ 0 == false }} {{ '' == none }}",
    "compare_mismatch": "{{ 1 < 'a' }}",
    "compare_none": "{{ none < 1 }}",
    "logic_values": "{{ 0 or 'x' }} {{ 1 and 'y' }} {{ '' or none or 'z' }} {{ 1 and 0 and 2 }} {{ not 1 }} {{ not '' }}",
    "logic_precedence": "{{ true or false and false }} {{ not true == false }} {{ not 1 in [2] }}",
    "in_operators": "{{ 'a' in 'cat' }} {{ 2 in [1, 2] }} {{ 'role' in messages[0] }} {{ 'x' not in 'cat' }} {{ '' in '' }}",
    "in_dict": "{{ 'tool_calls' in messages[2] }} {{ 'tool_calls' in messages[1] }} {{ 1.0 in {1: 'a'} }}",
    "in_undefined": "{{ 'a' in nothing }}",
    "in_none": "{{ 'a' in none }}",
    "in_string_int": "{{ 1 in 'a1' }}",
    "inline_if": "{{ 'a' if true else 'b' }} {{ 'a' if false else 'b' }} {{ 'a' if false }}| {{ 1 if 0 else 2 if 0 else 3 }}",
    "truth": "{% for v in [0, 1, '', 'a', [], [0], {}, none, 0.0] %}{{ 'T' if v else 'F' }}{% endfor %}",
    # ---- tests
    "is_defined": "{{ x is defined }} {{ messages is defined }} {{ x is undefined }} {{ messages[0].foo is defined }}",
    "is_types": "{% for v in [1, 1.5, true, none, 'a', [1], (1,), {'a': 1}] %}{{ v is string }}{{ v is mapping }}{{ v is iterable }}{{ v is sequence }}{{ v is number }}{{ v is integer }}{{ v is float }}{{ v is boolean }}{{ v is none }}{{ v is true }}{{ v is false }}\n{% endfor %}",
    "is_undefined_types": "{{ x is string }} {{ x is mapping }} {{ x is iterable }} {{ x is sequence }} {{ x is number }} {{ x is none }}",
    "is_even_odd": "{{ 2 is even }} {{ 2 is odd }} {{ -3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}",
    "is_compare": "{{ 1 is eq 1 }} {{ 1 is equalto 2 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is gt(2) }} {{ 1 is ge 1 }} {{ 1 is le 0 }}",
    "is_in": "{{ 1 is in [1, 2] }} {{ 'x' is in 'abc' }} {{ 3 is not in [1] }}",
    "is_not": "{{ 1 is not none }} {{ x is not defined }} {{ not x is defined }}",
    "is_case": "{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'aBc' is lower }} {{ '12' is upper }}",
    "is_sameas": "{{ none is sameas none }} {{ true is sameas 1 }} {{ 1 is callable }}",
    "is_then_and": "{{ x is defined and x }} {{ messages is defined and messages | length > 1 }}",
    "is_filter": "{{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'defined' is test }}",
    "even_of_string": "{{ 'a' is even }}",
    # ---- undefined
    "undefined_prints_empty": "[{{ x }}][{{ messages[0].foo }}][{{ messages[9] }}][{{ none.a }}][{{ 5[0] }}]",
    "undefined_attribute": "{{ x.y }}",
    "undefined_item": "{{ x['y'] }}",
    "undefined_call": "{{ x() }}",
    "undefined_add": "{{ x + 1 }}",
    "undefined_less": "{{ x < 1 }}",
    "undefined_equal": "{{ x == y }} {{ x == none }} {{ x != 1 }}",
    "undefined_loop": "[{% for a in x %}{{ a }}{% else %}empty{% endfor %}]",
    "undefined_filters": "{{ x | length }}{{ x | upper }}{{ x | trim }}{{ x | default('d') }}{{ x | list }}{{ x | join(',') }}{{ x | first }}{{ x | string }}|{{ x | sum }}",
    "undefined_tojson": "{{ x | tojson }}",
    "undefined_int": "{{ x | int }}",
    "undefined_method": "{{ 'a'.nope() }}",
    "undefined_key_deep": "{{ messages[0].foo.bar }}",
    # ---- access
    "attribute_and_item": "{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages.0.role }} {{ messages[-1].content }}",
    "dict_method_wins": "{{ tools[0].function.parameters.items is callable }} {{ tools[0].function.parameters['items'] }}",
    "string_index": "{{ 'abc'[0] }} {{ 'abc'[-1] }} {{ '\u00e9\u4f60x'[1] }} [{{ 'abc'[5] }}]",
    "slices": "{{ 'abcdef'[1:3] }} {{ 'abcdef'[:2] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'abc'[5:] }}|",
    "slices_list": "{{ [1, 2, 3, 4][1:] }} {{ [1, 2, 3, 4][:-1] }} {{ [1, 2, 3][::-1] }} {{ (1, 2, 3)[1:] }} {{ [1, 2, 3][10:0:-2] }} {{ [1, 2, 3][-9:2] }}",
    "slice_unicode": "{{ '\u4f60\u597d\U0001f600a'[1:3] }} {{ '\u4f60\u597d\U0001f600a'[::-1] }}",
    "slice_messages": "{% for m in messages[1:] %}{{ m.role }},{% endfor %}",
    "slice_none": "{% set n = none %}{{ n[1:] }}",
    "slice_zero_step": "{{ 'abc'[::0] }}",
    # ---- set, scopes
    "set_simple": "{% set a = 1 %}{{ a }}",
    "set_tuple": "{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set (c, d) = [2, 3] %}{{ c + d }}",
    "set_bare_tuple": "{% set a = 1, 2 %}{{ a }}",
    "set_block": "{% set a %}  x{{ 1 + 1 }} {% endset %}[{{ a }}]",
    "set_block_filter": "{% set a | upper | trim %} abc {% endset %}[{{ a }}]",
    "set_in_loop_is_local": "{% set a = 0 %}{% for i in [1, 2] %}{{ a }}{% set a = i %}{{ a }}{% endfor %}{{ a }}",
    "set_in_if_is_shared": "{% if true %}{% set a = 5 %}{% endif %}{{ a }}",
    "set_unpack_mismatch": "{% set a, b = [1, 2, 3] %}",
    "namespace_basic": "{% set ns = namespace(n=0, s='') %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }} {{ ns.s }} {{ ns.nothing }}|",
    "namespace_new_attribute": "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}",
    "namespace_from_dict": "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "namespace_wrong_object": "{% set d = {} %}{% set d.a = 1 %}",
    "with_block": "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "filter_block": "{% filter upper | replace('B', 'x') %}abc{{ 1 }}{% endfilter %}",
    # ---- if, for
    "if_elif_else": "{% for i in range(4) %}{% if i == 0 %}a{% elif i == 1 %}b{% elif i == 2 %}c{% else %}d{% endif %}{% endfor %}",
    "for_simple": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
    "for_else": "{% for i in [] %}x{% else %}none{% endfor %}{% for i in [1] %}x{% else %}none{% endfor %}",
    "for_filter": "{% for i in range(6) if i is odd %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% endfor %}",
    "for_filter_else": "{% for i in range(3) if i > 5 %}x{% else %}none{% endfor %}",
    "loop_attributes": "{% for c in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "loop_cycle": "{% for i in range(5) %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "loop_nested": "{% for a in [1, 2] %}{% for b in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}",
    "loop_previtem_attribute": "{% for m in messages %}{{ loop.previtem.role if not loop.first }}>{{ m.role }} {% endfor %}",
    "for_unpack": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "for_dict_keys": "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}",
    "for_string": "{% for c in 'a\u00e9\u4f60' %}{{ c }}.{% endfor %}",
    "for_inline_if": "{% for i in ([1, 2] if true else []) %}{{ i }}{% endfor %}",
    "for_break": "{% for i in range(10) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}!",
    "for_continue": "{% for i in range(5) %}{% if i % 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}!",
    "for_tuple_source": "{% for i in 1, 2, 3 %}{{ i }}{% endfor %}",
    "for_variable_is_local": "{% set i = 9 %}{% for i in [1] %}{{ i }}{% endfor %}{{ i }}",
    "for_none": "{% for i in none %}{% endfor %}",
    "for_number": "{% for i in 5 %}{% endfor %}",
    "for_unpack_mismatch": "{% for a, b in [[1]] %}{% endfor %}",
    "ranges": "{{ range(3) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }} {{ range(0) | list }} {{ range(4) | length }} {{ range(3)[1] }}",
    "range_too_big": "{% for i in range(100001) %}{% endfor %}",
    "range_zero_step": "{{ range(1, 2, 0) }}",
    # ---- macros
    "macro_simple": "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='y') }} {{ m(b=5, a=0) }}",
    "macro_missing_argument": "{% macro m(a) %}[{{ a }}]{{ a is defined }}{% endmacro %}{{ m() }}",
    "macro_too_many": "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "macro_unknown_argument": "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}",
    "macro_sees_globals": "{% set g = 7 %}{% macro m() %}{{ g }}{{ bos_token }}{% endmacro %}{{ m() }}",
    "macro_hides_caller_locals": "{% macro m() %}[{{ i }}]{% endmacro %}{% for i in [1] %}{{ m() }}{% endfor %}",
    "macro_recursive": "{% macro down(n) %}{{ n }}{% if n > 0 %}{{ down(n - 1) }}{% endif %}{% endmacro %}{{ down(4) }}",
    "macro_result_is_text": "{% macro m() %} x {% endmacro %}[{{ m() | trim | upper }}]{{ m() | length }}{{ m() + 'y' }}",
    "macro_default_sees_argument": "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(3) }}",
    "macro_in_loop": "{% macro row(m) -%}\n  <{{ m.role }}>\n{%- endmacro %}{% for m in messages %}{{ row(m) }}{% endfor %}",
    # ---- string methods
    "strip": "[{{ '  a b \\n'.strip() }}][{{ '  a '.lstrip() }}][{{ '  a '.rstrip() }}][{{ 'xxaxx'.strip('x') }}][{{ 'abcab'.rstrip('ab') }}][{{ '\u00a0\u3000a'.strip() }}]",
    "split": "{{ 'a,b,,c'.split(',') }} {{ 'a b  c '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ ' a b c'.split(none, 1) }}",
    "rsplit": "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c '.rsplit(none, 1) }} {{ 'aaa'.rsplit('aa') }} {{ 'a--b'.rsplit('--') }}",
    "split_maxsplit_zero": "{{ ' a b '.split(none, 0) }} {{ 'a,b'.split(',', 0) }} {{ ' a b '.rsplit(none, 0) }}",
    "split_keyword": "{{ 'a-b-c'.split('-', maxsplit=1) }} {{ 'a-b-c'.split(sep='-') }}",
    "split_empty_separator": "{{ 'a'.split('') }}",
    "split_think": "{{ messages[2].content.split('</think>')[-1] }} {{ messages[2].content.split('</think>', 1)[1] }}",
    "splitlines": "{{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ 'a\\nb'.splitlines(true) }} {{ ''.splitlines() }}",
    "affixes": "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.startswith('') }}",
    "case_methods": "{{ 'aBc dEf'.upper() }} {{ 'aBc'.lower() }} {{ \"they're bill's\".title() }} {{ 'aBC d'.capitalize() }}",
    "case_unicode": "{{ '\u00e9\u00fc\u0436\u03b1'.upper() }} {{ '\u00c9\u0416\u0391'.lower() }} {{ 'stra\u00dfe'.upper() }} {{ '\u00e9a b'.title() }}",
    "replace_method": "{{ 'aaa'.replace('a', 'b') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ 'abc'.replace('x', 'y') }}",
    "join_method": "{{ ', '.join(['a', 'b']) }} {{ '-'.join('abc') }}",
    "join_method_numbers": "{{ ','.join([1]) }}",
    "find_methods": "{{ 'abcabc'.find('c') }} {{ 'abc'.find('x') }} {{ 'abcabc'.rfind('b') }} {{ '\u4f60a'.find('a') }} {{ 'aXbX'.count('X') }} {{ 'abc'.index('b') }}",
    "index_missing": "{{ 'abc'.index('x') }}",
    "class_methods": "{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ ''.isdigit() }} {{ 'a b'.isalpha() }}",
    "remove_affixes": "{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('bc') }} {{ 'abc'.removeprefix('x') }}",
    # ---- dict and list methods
    "dict_methods": "{{ messages[0].get('role') }} {{ messages[0].get('x') }} {{ messages[0].get('x', 'd') }} {{ messages[0].keys() | list }} {{ messages[0].values() | list }}",
    "dict_views": "{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }}",
    "dict_function": "{{ dict(a=1, b='x') }} {{ dict({'a': 1}, a=2) }} {{ dict([('k', 'v')]) }}",
    "list_methods": "{{ [1, 2, 1].count(1) }} {{ ['a', 'b'].index('b') }}",
    "list_append_refused": "{% set l = [] %}{% set _ = l.append(1) %}",
    "dict_update_refused": "{% set d = {} %}{% set _ = d.update({'a': 1}) %}",
    "unhashable_key": "{{ {[1]: 2} }}",
    # ---- filters
    "tojson_scalars": "{{ 1 | tojson }} {{ 1.5 | tojson }} {{ true | tojson }} {{ none | tojson }} {{ 'a\"b\\\\c\\n\\x01\u00e9<&>\\'' | tojson }} {{ 1e20 | tojson }}",
    "tojson_nested": "{{ tools | tojson }}",
    "tojson_indent": "{{ tools | tojson(indent=2) }}",
    "tojson_indent_empty": "{{ {'a': [], 'b': {}, 'c': [1]} | tojson(indent=4) }} {{ [] | tojson(indent=2) }}",
    "tojson_ascii": "{{ '\u00e9\U0001f600' | tojson(ensure_ascii=true) }} {{ '\u00e9\U0001f600' | tojson }}",
    "tojson_separators": "{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}",
    "tojson_sorted": "{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }}",
    "tojson_keys": "{{ {1: 'a', none: 'b', true: 'c', 2.5: 'd'} | tojson }}",
    "tojson_tuple": "{{ (1, 'a') | tojson }}",
    "tojson_in_concat": "{{ 'x' + tools[0].function.parameters.required | tojson + 'y' }}",
    "trim_filter": "[{{ '  a ' | trim }}][{{ 'xax' | trim('x') }}][{{ 5 | trim }}]",
    "length_filter": "{{ 'a\u00e9\u4f60' | length }} {{ [1, 2] | count }} {{ {'a': 1} | length }} {{ messages | length }}",
    "length_of_int": "{{ 5 | length }}",
    "first_last": "{{ [1, 2] | first }} {{ [1, 2] | last }} {{ 'abc' | first }} {{ 'abc' | last }} [{{ [] | first }}] {{ {'a': 1} | first }}",
    "join_filter": "{{ [1, 'a', none] | join('-') }} {{ 'abc' | join }} {{ messages | join(',', attribute='role') }} {{ [1, 2] | join(d='+') }}",
    "case_filters": "{{ 'aBc' | upper }} {{ 'aBc' | lower }} {{ \"they're HERE-now (x) [y\" | title }} {{ 'aBC' | capitalize }} {{ 5 | upper }}",
    "replace_filter": "{{ 'aaa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 1) }} {{ 121 | replace(1, 3) }}",
    "default_filter": "{{ x | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ none | d('e', boolean=true) }} {{ none | default('f') }} {{ x | default }}|",
    "int_filter": "{{ '42' | int }} {{ ' -7 ' | int }} {{ '4.9' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 3.99 | int }} {{ '0x1f' | int(base=16) }} {{ true | int }} {{ none | int }} {{ '1_000' | int }} {{ [] | int(-1) }}",
    "float_filter": "{{ '1.5' | float }} {{ 'x' | float }} {{ 2 | float }} {{ '1e3' | float }} {{ 'x' | float(default=1.5) }} {{ '.5' | float }} {{ ' 2. ' | float }}",
    "list_filter": "{{ 'ab' | list }} {{ {'a': 1} | list }} {{ (1, 2) | list }}",
    "items_filter": "{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{% endfor %}{% for k, v in x | items %}{% endfor %}",
    "items_filter_list": "{{ [1] | items | list }}",
    "dictsort": "{{ {'b': 1, 'A': 3, 'c': 2} | dictsort }} {{ {'b': 1, 'A': 3} | dictsort(true) }} {{ {'b': 1, 'a': 3} | dictsort(by='value', reverse=true) }}",
    "map_attribute": "{{ messages | map(attribute='role') | join(',') }} {{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }} {{ [[1, 2]] | map(attribute=1) | list }} {{ [{}] | map(attribute='z', default='q') | list }}",
    "map_filter": "{{ ['a', 'b'] | map('upper') | list }} {{ [' a '] | map('trim') | join }} {{ ['ab'] | map('replace', 'a', 'x') | list }}",
    "select_reject": "{{ range(6) | select('odd') | list }} {{ range(6) | reject('even') | list }} {{ [0, 1, '', 'a'] | select | list }} {{ [1, 5] | select('gt', 2) | list }} {{ ['a', none] | reject('none') | list }}",
    "selectattr": "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }} {{ messages | rejectattr('role', 'in', ['user', 'system']) | list | length }} {{ messages | selectattr('tool_calls') | list }} {{ messages | selectattr('tool_calls', 'defined') | list | length }}",
    "select_lazy_is_true": "{{ 'T' if messages | selectattr('role', 'equalto', 'nobody') else 'F' }}",
    "selectattr_operators": "{{ messages | selectattr('role', '==', 'user') | list | length }} {{ messages | selectattr('role', 'ne', 'user') | list | length }}",
    "sort_filter": "{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [1, 3, 2] | sort(reverse=true) }} {{ messages | sort(attribute='role') | map(attribute='role') | join(',') }}",
    "sort_mixed": "{{ [1, 'a'] | sort }}",
    "unique_filter": "{{ [1, 2, 1, 1.0] | unique | list }} {{ ['a', 'A', 'b'] | unique | list }} {{ ['a', 'A'] | unique(case_sensitive=true) | list }} {{ messages | unique(attribute='role') | map(attribute='role') | list }}",
    "reverse_filter": "{{ 'a\u00e9b' | reverse }} {{ [1, 2, 3] | reverse | list }}",
    "indent_filter": "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(1, blank=true) }}|{{ 'a\\nb' | indent('>>') }}|{{ 'a\\n' | indent(2) }}|",
    "number_filters": "{{ -3 | abs }} {{ 2.567 | round(2) }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 7 | round }} {{ 2.1 | round(0, 'ceil') }} {{ 2.19 | round(1, 'floor') }} {{ -2.5 | abs }}",
    "aggregates": "{{ [1, 2, 3] | sum }} {{ [1.5, 2] | sum }} {{ [] | sum }} {{ [3, 1] | min }} {{ [3, 1] | max }} {{ ['b', 'A'] | min }} {{ [{'a': 1}, {'a': 5}] | sum(attribute='a') }} {{ [{'a': 1}, {'a': 5}] | max(attribute='a') }} [{{ [] | max }}] {{ [1] | sum(start=10) }}",
    "string_filter": "{{ 1 | string + 'a' }} {{ [1] | string | length }} {{ none | string }}",
    "filter_precedence": "{{ 'a' ~ 'b' | upper }} {{ ('a' ~ 'b') | upper }} {{ 'x' + 'y' | upper + 'z' }}",
    "filter_chain_call": "{{ ' a,b '.strip().split(',') | map('upper') | join('+') }}",
    "filter_unknown_argument": "{{ 'a' | trim(foo=1) }}",
    "filter_too_many_arguments": "{{ 'a' | upper(1) }}",
    # ---- functions
    "raise_exception": "{{ raise_exception('bad roles') }}",
    "strftime_now": "{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %B %a %A %j %p %I %y %% x') }}",
    # ---- whole templates
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama2_like": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "tool_listing": "{%- if tools %}\n  {{- '<tools>' }}\n  {%- for tool in tools %}\n    {{- '\\n' }}\n    {{- tool | tojson }}\n  {%- endfor %}\n  {{- '\\n</tools>' }}\n{%- endif %}\n",
    "schema_walk": "{% macro show(p, depth=0) %}{% for k, v in p.properties.items() %}{{ '  ' * depth }}{{ k }}: {{ v.type }}{% if v.default is defined %} = {{ v.default }}{% endif %}{% if k in p.required %} !{% endif %}\n{% endfor %}{% endmacro %}{% for t in tools %}{{ t.function.name }}\n{{ show(t.function.parameters, 1) }}{% endfor %}",
    "last_user_index": "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}",
    "backward_scan": "{% for m in messages[::-1] %}{% set i = (messages | length - 1) - loop.index0 %}{{ i }}{{ m.role[0] }} {% endfor %}",
    "generation_block": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    # ---- syntax errors
    "error_unknown_tag": "{% foo %}",
    "error_unknown_filter": "{{ 1 | nope }}",
    "error_unknown_test": "{{ 1 is nope }}",
    "error_unclosed_if": "{% if true %}",
    "error_unclosed_output": "{{ 1",
    "error_unclosed_string": "{{ 'a }}",
    "error_unclosed_comment": "a {# b",
    "error_unclosed_raw": "{% raw %} b",
    "error_stray_end": "{% endif %}",
    "error_stray_else": "{% else %}",
    "error_brackets": "{{ (1] }}",
    "error_empty_output": "{{ }}",
    "error_empty_if": "{% if %}{% endif %}",
    "error_two_values": "{{ 1 2 }}",
    "error_missing_in": "{% for i [1] %}{% endfor %}",
    "error_assign_literal": "{% set 1 = 2 %}",
    "error_character": "{{ 1 ! 2 }}",
    "error_chained_is": "{{ 1 is none is none }}",
    "error_break_outside": "{% break %}",
    "error_default_order": "{% macro m(a=1, b) %}{% endmacro %}",
    "error_positional_after_named": "{{ dict(a=1, 2) }}",
    "error_wrong_end": "{% if true %}{% endfor %}",
}


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %}: its body is rendered as it stands."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_support")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _support(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format):
        import datetime

        return datetime.datetime(2024, 2, 29, 13, 5, 9).strftime(format)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/jinja/cases.json"
    env = environment()
    cases = []
    for name, source in SNIPPETS.items():
        case = {"name": name, "source": source}
        try:
            case["expected"] = env.from_string(source).render(**COMMON)
        except Exception as error:  # noqa: BLE001 - any failure of jinja2 must be a failure of ours
            case["error"] = True
            case["jinja2_says"] = f"{type(error).__name__}: {error}"
        cases.append(case)
    document = {
        "generator": "tools/golden/make_jinja_cases.py",
        "jinja2": jinja2.__version__,
        "variables": COMMON,
        "cases": cases,
    }
    output.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{output}: {len(cases)} cases")


if __name__ == "__main__":
    main()
