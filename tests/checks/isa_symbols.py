#!/usr/bin/env python3
"""isa_symbols.py NM OBJECT...: the objects of instruction-set units define nothing that the linker could share.

A weak symbol (an inline or template function of a library, compiled for AVX-512) may be the copy that the linker keeps for
the whole program, which then dies on older processors. Units therefore define local symbols and their table, only.
"""
import subprocess
import sys

SHARED = {
    "W": "weak", "w": "weak", "V": "weak object", "v": "weak object", "u": "unique object", "C": "common",
    "T": "global function", "i": "indirect function",
}


def main() -> int:
    nm, objects = sys.argv[1], [o for o in sys.argv[2:] if o]
    if not objects:
        print("isa_symbols: no objects given", file=sys.stderr)
        return 2
    bad = 0
    for path in objects:
        text = subprocess.run([nm, "--demangle", path], check=True, capture_output=True, text=True).stdout
        lines = [line[17:] for line in text.splitlines() if line.strip()]
        if not lines:
            print(f"isa_symbols: {path} has no symbols", file=sys.stderr)
            return 2
        for line in lines:
            kind, name = line[0], line[2:]
            if kind in SHARED:
                print(f"{path}: {SHARED[kind]} {name}: expected internal linkage", file=sys.stderr)
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
