#!/usr/bin/env python3
"""Writes the hostile model folders and cases.json, which says what the program must do with each.

  make_hostile.py FOLDER            all of them, into FOLDER/<case>
  make_hostile.py FOLDER --only TEXT ...   the cases whose name contains one of the texts
  make_hostile.py --list            names, expectations and commands, without writing anything

Standard library only; the same bytes on every machine.
"""

import argparse
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cases_config  # noqa: E402
import cases_gguf  # noqa: E402
import cases_template  # noqa: E402
import cases_tokenizer  # noqa: E402
import cases_weights  # noqa: E402
from cases import Case, arguments  # noqa: E402
from tiny_model import Model  # noqa: E402


def valid_cases():
    """Controls: what must load does load, with every command."""
    for command in ("generate", "verify", "inspect", "tokenize", "template"):
        yield Case(f"valid-{command}", lambda model: None, "loads", command=command)
    for command in ("generate", "verify"):
        yield Case(f"valid-fp8-{command}", lambda model: None, "loads", command=command, v3=True)

    def shards(model):
        model.split(3)

    yield Case("valid-shards", shards, "loads")

    def linked(model):
        """Every file a link to its content elsewhere, as in the hub cache."""
        model.split(2)
        for name, content in model.parts().items():

            def link(path, content=content):
                blob = path + ".blob"
                with open(blob, "wb") as file:
                    file.write(content)
                os.symlink(os.path.basename(blob), path)

            model.files[name] = link

    yield Case("valid-links", linked, "loads")


def folder_name(name):
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def all_cases():
    """Every case, in a fixed order, names checked to be unique."""
    bases = {False: Model(v3=False), True: Model(v3=True)}
    listed = list(valid_cases())
    for module in (cases_weights, cases_config, cases_tokenizer, cases_template, cases_gguf):
        listed.extend(module.cases(bases[False], bases[True]))
    names = [folder_name(case.name) for case in listed]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SystemExit(f"case names used twice: {twice}")
    return listed, bases


def write_case(case, bases, folder):
    """Writes one model folder; returns its row of cases.json."""
    model = bases[case.v3].copy()
    case.build(model)
    model.write(folder)
    size = sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in os.listdir(folder))
    return {
        "name": case.name,
        "arguments": arguments(case, folder),
        "expect": case.expect,
        "mentions": case.mentions,
        "exits": list(case.exits),
        "bytes": size,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where to write")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="only cases whose name contains a TEXT")
    parser.add_argument("--list", action="store_true", help="print the cases instead of writing them")
    options = parser.parse_args()
    listed, bases = all_cases()
    if options.only:
        listed = [case for case in listed if any(text in case.name for text in options.only)]
    if options.list:
        for case in listed:
            print(f"{case.name}\t{case.expect}\t{case.command}")
        print(f"{len(listed)} cases", file=sys.stderr)
        return
    if not options.folder:
        parser.error("expected a folder to write to")
    os.makedirs(options.folder, exist_ok=True)
    root = os.path.abspath(options.folder)
    rows = [write_case(case, bases, os.path.join(root, folder_name(case.name))) for case in listed]
    with open(os.path.join(root, "cases.json"), "w", encoding="ascii") as file:
        json.dump(rows, file, indent=1)
    print(f"{len(rows)} cases in {root}")


if __name__ == "__main__":
    main()
