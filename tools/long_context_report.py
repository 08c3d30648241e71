#!/usr/bin/env python3
"""What recipes/long-context.toml did to a model, as a Markdown report with the figures of `lathe eval`.

    tools/long_context_report.py --program build/lathe --base runs/storyteller/checkpoint-4200 \\
        --run runs/long-context --text OTHERS.txt --out docs/reports/long-context.md

Evaluated are the base model; the same weights with nothing but a longer limit; the same weights with YaRN as in the last
variant, not trained further; and the last checkpoint of each variant. Each gets the perplexity of the text (its first
--bytes bytes, at a line's end) in windows of the base's and of each variant's context as far as its own reaches, by
position in the longest of these, and passkey retrieval at the same lengths. What was measured is kept in --work (default:
RUN/eval) as JSON and found again by the next call, so that an interrupted evaluation goes on and the report can be
written anew in a moment; remove a file there to measure it again.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys


def fail(message):
    sys.exit(f"long_context_report.py: {message}")


def read_json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return fail(f"{path}: {error}")


def last_checkpoint(folder):
    steps = [int(p.name.split("-")[1]) for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    if not steps:
        fail(f"{folder}: expected a checkpoint, found none")
    return folder / f"checkpoint-{max(steps)}"


def stretched(work, name, base, fields):
    """The base model with other fields in its config.json; everything else is linked."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in base.iterdir():
        link = folder / path.name
        if path.name != "config.json" and not path.name.startswith("training_state") and not link.exists():
            link.symlink_to(path.resolve())
    config = read_json(base / "config.json")
    config.update(fields)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def models_of(options):
    """[(name, folder, context)], the base first; the variants in the order of their contexts."""
    base = read_json(options.base / "config.json")
    runs = [options.run] if list(options.run.glob("checkpoint-*")) else sorted(
        path for path in options.run.iterdir() if list(path.glob("checkpoint-*")))
    if not runs:
        fail(f"{options.run}: expected checkpoints of variants, found none")
    trained = []
    for run in runs:
        folder = last_checkpoint(run)
        trained.append((run.name, folder, read_json(folder / "config.json")))
    trained.sort(key=lambda one: one[2]["max_position_embeddings"])
    last = trained[-1][2]
    longest = last["max_position_embeddings"]
    out = [("base", options.base, base["max_position_embeddings"])]
    out.append(("base, longer limit",
                stretched(options.work, "base-longer", options.base, {"max_position_embeddings": longest}), longest))
    yarn = {"max_position_embeddings": longest, "rope_scaling": last["rope_scaling"]}
    out.append(("base with YaRN, untrained", stretched(options.work, "base-yarn", options.base, yarn), longest))
    return out + [(name, folder, config["max_position_embeddings"]) for name, folder, config in trained]


def measured(options, name, command):
    """The JSON of a command, from --work when it was measured before by the same command."""
    path = options.work / f"{name}.json"
    words = [str(word) for word in command]
    if path.exists():
        known = read_json(path)
        if known.get("command") == words:
            return known["result"]
    print(shlex.join(words), file=sys.stderr)
    done = subprocess.run([str(options.program), *words], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                          check=False)
    if done.returncode != 0:
        fail(f"{shlex.join(words)}: exit code {done.returncode}")
    result = json.loads(done.stdout)
    path.write_text(json.dumps({"command": words, "result": result}, indent=1))
    return result


def evaluate(options, models, windows):
    """name -> ({window: perplexity JSON}, needle JSON)."""
    text = options.work / "text.txt"
    data = options.text.read_bytes()[: options.bytes]
    data = data[: data.rfind(b"\n") + 1] or data
    text.write_bytes(data.decode("utf-8", "ignore").encode())
    common = ["--json", "-q", *(["-t", options.threads] if options.threads else [])]
    out = {}
    for name, folder, context in models:
        stem = name.replace(",", "").replace(" ", "-")
        perplexity = {}
        for window in [w for w in windows if w <= context]:
            bins = ["--by-position", options.bins] if window == max(w for w in windows if w <= context) else []
            command = ["eval", "perplexity", "-m", folder, "-f", text, "--ctx", window, *bins, *common]
            perplexity[window] = measured(options, f"perplexity-{stem}-{window}", command)
        lengths = [w for w in windows if w <= context]
        command = ["eval", "needle", "-m", folder, "--lengths", ",".join(map(str, lengths)), "--depths", "0,25,50,75,100",
                   "--samples", options.samples, "--plain", *common]
        out[name] = (perplexity, measured(options, f"needle-{stem}", command))
    return out, len(text.read_bytes())


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def needle_cell(needle, length):
    cells = [cell for cell in needle["cells"] if cell["length"] == length]
    if not cells:
        return ""
    exact = sum(cell["exact"] for cell in cells) / len(cells)
    rank = sum(cell["reciprocal_rank"] for cell in cells) / len(cells)
    return f"{100 * exact:.0f} % / {rank:.3f}"


def position_rows(models, results, bins):
    """Bins of every model's longest window, each with the positions it covers."""
    rows = []
    for name, _, _ in models:
        perplexity = results[name][0]
        window = max(perplexity)
        entries = perplexity[window]["by_position"]
        values = ["" if e["perplexity"] is None else f"{e['perplexity']:.2f}" for e in entries]
        rows.append([name, f"{window:,}", f"{window // bins:,}", *values])
    return rows


def report(options, models, windows, results, size):
    lines = [
        "# Longer contexts",
        "",
        f"`recipes/long-context.toml` from a model with a context of {models[0][2]:,} tokens, evaluated by "
        f"`tools/long_context_report.py` on {size:,} bytes of text that the model was not trained on.",
        "",
        "## Perplexity by window",
        "",
        "The same text in windows of so many tokens; a longer window helps a model that uses its context.",
        "",
    ]
    rows = []
    for name, _, _ in models:
        perplexity = results[name][0]
        rows.append([name, *(f"{perplexity[w]['perplexity']:.3f}" if w in perplexity else "" for w in windows)])
    lines += table(["model", *(f"{w:,}" for w in windows)], rows)
    lines += [
        "## Perplexity by position",
        "",
        f"Each model's longest window in {options.bins} bins of the predicted token's position.",
        "",
    ]
    lines += table(["model", "window", "tokens of a bin", *(str(i + 1) for i in range(options.bins))],
                   position_rows(models, results, options.bins))
    samples = 5 * options.samples
    lines += [
        "## Passkey retrieval",
        "",
        f"Keys found / mean reciprocal rank of the key's tokens, {samples} prompts for each length (depths 0 to 100 %). "
        "0.29 is the rank of a model that knows no more than that a digit is due.",
        "",
    ]
    lines += table(["model", *(f"{w:,}" for w in windows)],
                   [[name, *(needle_cell(results[name][1], w) for w in windows)] for name, _, _ in models])
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the program lathe")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="checkpoint that the recipe started from")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="output folder of the recipe")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="UTF-8 text that no model was trained on")
    parser.add_argument("--bytes", type=int, default=400000, help="of the text; default 400000")
    parser.add_argument("--bins", type=int, default=8, help="of the position; default 8")
    parser.add_argument("--samples", type=int, default=4, help="prompts of each length and depth; default 4")
    parser.add_argument("-t", "--threads", type=int, help="default: the program's")
    parser.add_argument("--work", type=pathlib.Path, help="where measurements are kept; default RUN/eval")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file; default: standard output")
    options = parser.parse_args()
    options.work = options.work or options.run / "eval"
    options.work.mkdir(parents=True, exist_ok=True)
    models = models_of(options)
    windows = sorted({context for _, _, context in models})
    results, size = evaluate(options, models, windows)
    text = report(options, models, windows, results, size)
    if options.out:
        options.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
