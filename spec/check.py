"""Checks the ABNF of the specification against its vectors, with a parser that is not ours (the package `abnf`).

What the grammar alone can refuse must be refused by it, and what only other layers refuse must be accepted by it.
"""

import pathlib
import sys

from abnf import ParseError, Rule

HERE = pathlib.Path(__file__).parent
FIRST = {"Tidings": "tidings", "Channel": "channel-field", "Serial": "serial-field", "Previous": "previous", "Time": "time-field",
         "Trust": "trust-field", "Signature": "signature"}
FIELDS = ["Version", "Summary", "Details", "Urgency", "Target", "Barrier", "Not-Before", "Deadline", "Rollout", "Slot", "Apply", "Payload",
          "Withdraws", "Reason", "Fallback", "Expires", "Key", "Role", "Checkpoint", "Head", "Critical"]
RULES = FIRST | {name: name.lower() for name in FIELDS}


class Tidings(Rule):
    """The grammar; each octet is one character of it."""


def parse(rule, text):
    try:
        Tidings(rule).parse_all(text)
        return True
    except ParseError:
        return False


def accepts(text):
    """The whole by its frame, each line with a known name by its own rule."""
    lines = [line + "\n" for line in text.split("\n")]
    if lines.pop() != "\n" or not lines:
        return False
    order = list(FIRST)[:6]
    names = [line.partition(":")[0] for line in lines]
    first = [name for name in order if name != "Trust" or "Trust" == names[5:6][:1]]
    if names[: len(first)] != first and names[:5] != order[:5]:
        return False
    if "Signature" not in names or set(names[names.index("Signature"):]) != {"Signature"}:
        return False
    return all(parse(RULES.get(name, "field"), line) for name, line in zip(names, lines))


def main():
    Tidings.from_file(HERE / "grammar.abnf")
    wrong = count = whole = 0
    for path in sorted((HERE / "vectors").glob("good/*")) + sorted((HERE / "vectors").glob("bad/*")):
        head, _, body = path.read_bytes().partition(b"\n\n")
        layer = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line).get("layer", "good")
        if layer == "envelope":
            continue
        text = body.decode("latin-1")
        found, expected = accepts(text), layer != "grammar"
        if layer == "good" and len(text) < 3000:
            whole += 1
            found = found and parse("statement", text)
        count += 1
        if found != expected:
            wrong += 1
            print(f"{path.parent.name}/{path.name}: the grammar {'accepts' if found else 'refuses'} it, its layer is {layer}")
    print(f"{count} vectors, {whole} of them also as a whole statement; {wrong} disagree with the grammar")
    return 1 if wrong or count < 100 or not whole else 0


if __name__ == "__main__":
    sys.exit(main())
