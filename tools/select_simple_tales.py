#!/usr/bin/env python3
"""Chooses the documents of a story corpus that are told in simple words, for a small model to finish on.

    tools/select_simple_tales.py stories.train.txt > simple.train.txt

Documents end with a line <|endoftext|>, as in the corpus of `lathe train`. A document is simple when at least 86.5 % of
its words are among the 1,500 that are commonest in the whole file and its sentences have at most 24 words in mean. One
that begins as a tale ("once upon a time", "there was once") may have 85 % and longer sentences. Needs only Python.
"""

import argparse
import collections
import re
import sys

END = "<|endoftext|>\n"
WORD = re.compile(r"[a-z']+")
SENTENCE_END = re.compile(r"""[.!?;]["']?\s""")
TALE = re.compile("once upon a time|there was once|there once (was|lived)|once there (was|were|lived)", re.IGNORECASE)
OPENING = 600  # characters in which a tale begins as one


def is_simple(text, common, args):
    words = WORD.findall(text.lower())
    known = sum(word in common for word in words) / max(1, len(words))
    sentences = sum(1 for part in SENTENCE_END.split(text) if part.strip())
    if known >= args.known and len(words) / max(1, sentences) <= args.sentence:
        return True
    return known >= args.known_of_tales and TALE.search(text[:OPENING]) is not None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", help="text in UTF-8")
    parser.add_argument("--common", type=int, default=1500, help="how many words count as common (1500)")
    parser.add_argument("--known", type=float, default=0.865, help="least share of them (0.865)")
    parser.add_argument("--sentence", type=float, default=24.0, help="most words per sentence (24)")
    parser.add_argument("--known-of-tales", type=float, default=0.85, help="least share in what begins as a tale (0.85)")
    args = parser.parse_args()

    with open(args.stories, encoding="utf-8") as file:
        documents = [text for text in file.read().split(END) if text.strip()]
    counts = collections.Counter()
    for text in documents:
        counts.update(WORD.findall(text.lower()))
    common = {word for word, _ in counts.most_common(args.common)}
    chosen = [text for text in documents if is_simple(text, common, args)]
    print(f"{len(chosen)} of {len(documents)} documents, {sum(map(len, chosen))} characters", file=sys.stderr)
    sys.stdout.writelines(text + END for text in chosen)


if __name__ == "__main__":
    main()
