"""docs/cli.md describes the commands and options that the program has: no more, no fewer.

A command has a heading "## lathe NAME". Its options are the code spans `--name` in the first cells of the tables below
it, and those of the sections it links to as "(#...-options)".
"""

import argparse
import pathlib
import re
import subprocess

import tree

DOCUMENT = "docs/cli.md"
HEADING = re.compile(r"^##\s+(.*?)\s*$")
OPTION = re.compile(r"--[a-z][a-z0-9-]*")
GROUP_LINK = re.compile(r"\(#([a-z-]+-options)\)")
COMMAND_LINE = re.compile(r"^  ([a-z]+)  ", re.M)
IMPLIED = {"--help", "--version"}


def sections(text):
    """Heading -> (options in the first cells of its tables, anchors of the option groups it links to)."""
    found, heading = {}, None
    for line in text.splitlines():
        match = HEADING.match(line)
        if match:
            heading = match.group(1).replace("`", "")
            found[heading] = (set(), set())
        elif heading is not None:
            options, groups = found[heading]
            groups.update(GROUP_LINK.findall(line))
            if line.startswith("|"):
                options.update(OPTION.findall(line.strip("|").split("|")[0]))
    return found


def help_of(program, *command):
    """The help text of a command."""
    return subprocess.run(
        [program, *command, "--help"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout


def commands_of(program, *prefix):
    """The commands below `prefix` that have none below them, as tuples."""
    text = help_of(program, *prefix)
    if "Subcommands:" not in text:
        return [prefix]
    names = COMMAND_LINE.findall(text.split("Subcommands:")[1])
    return [command for name in names for command in commands_of(program, *prefix, name)]


def options_of(program, command):
    """The long options that the help of a command lists (aliases too), without those every command has."""
    listed = [line for line in help_of(program, *command).splitlines() if line.startswith("  -")]
    return {o for line in listed for o in OPTION.findall(line.split(" (Env:")[0].split("  ", 2)[1])} - IMPLIED


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--program", required=True)
    arguments = parser.parse_args()
    if not (arguments.root / DOCUMENT).is_file():
        tree.report("docs_cli", [f"{DOCUMENT}: not there"])
    documented = sections(tree.read(arguments.root, DOCUMENT))
    groups = {h.lower().replace(" ", "-"): options for h, (options, _) in documented.items() if h.endswith(" options")}
    findings, known = [], set()
    for command in commands_of(arguments.program):
        heading = " ".join(("lathe", *command))
        known.add(heading)
        if heading not in documented:
            findings.append(f"{DOCUMENT}: expected a section '{heading}', found none")
            continue
        own, links = documented[heading]
        described = own.union(*(groups.get(link, set()) for link in links))
        actual = options_of(arguments.program, command)
        findings += [f"{DOCUMENT}: {heading}: {o} is missing" for o in sorted(actual - described)]
        findings += [f"{DOCUMENT}: {heading}: the program has no {o}" for o in sorted(described - actual)]
    findings += [f"{DOCUMENT}: the program has no '{h}'" for h in documented if h.startswith("lathe ") and h not in known]
    tree.report("docs_cli", findings)


if __name__ == "__main__":
    main()
