"""Checks the forms in the specification against its vectors, with a parser of ABNF that is not ours (the package `abnf`).

The form of each field is read from its row in the tables of parts 1 and 2, the forms of values from `grammar.abnf`. What the
forms alone can refuse must be refused by them, and what only other rules refuse must be accepted.
"""

import pathlib
import re
import sys

from abnf import ParseError, Rule

HERE = pathlib.Path(__file__).parent
FIRST = ["Tidings", "Channel", "Serial", "Previous", "Time", "Trust"]


class Tidings(Rule):
    """The grammar; each octet is one character of it."""


def fields():
    """Name, form and rule of each field."""
    rows = []
    for part in ("1-listener.md", "2-installer.md"):
        table, head, rest = (HERE / part).read_text().partition("| field | form | rule | meaning |\n")
        if not head:
            raise SystemExit(f"{part} has lost its table of fields")
        for line in rest.splitlines()[1:]:
            if not line.startswith("| "):
                break
            name, form, rule, _ = line.strip("| ").split(" | ", 3)
            rows.append((name.strip("`"), form.strip("`"), rule))
    return rows


def parse(rule, text):
    try:
        Tidings(rule).parse_all(text)
        return True
    except ParseError:
        return False


def accepts(text, known):
    """The order of the lines, and the form of each."""
    lines = [line + "\n" for line in text.split("\n")]
    if lines.pop() != "\n" or not lines:
        return False
    names = [line.partition(":")[0] for line in lines]
    if names[:5] != FIRST[:5]:
        return False
    if "Signature" not in names or set(names[names.index("Signature"):]) != {"Signature"}:
        return False
    return all(parse("line-" + name if name in known else "field", line) for name, line in zip(names, lines))


def main():
    Tidings.from_file(HERE / "grammar.abnf")
    rows = fields()
    known = {name for name, _, _ in rows}
    for name, form, _ in rows:
        Tidings.create(f'line-{name} = %s"{name}: " ({form}) LF')
    if len(known) != len(rows) or [name for name, _, _ in rows[:6]] != FIRST:
        raise SystemExit("a field has two rows, or the first six are others than in the grammar")
    mentioned = {name for text in map(pathlib.Path.read_text, HERE.glob("[0-9]-*.md")) for name in re.findall(r"`([A-Z][A-Za-z-]+)` lines?", text)}
    wrong = count = whole = 0
    for name in sorted(mentioned - known):
        wrong += 1
        print(f"the specification speaks of `{name}` lines, and no table has such a field")
    for path in sorted((HERE / "vectors").glob("good/*")) + sorted((HERE / "vectors").glob("bad/*")):
        head, _, body = path.read_bytes().partition(b"\n\n")
        layer = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line).get("layer", "good")
        if layer == "envelope":
            continue
        text = body.decode("latin-1")
        found, expected = accepts(text, known), layer != "grammar"
        if layer == "good" and len(text) < 3000:
            whole += 1
            found = found and parse("statement", text)
        count += 1
        if found != expected:
            wrong += 1
            print(f"{path.parent.name}/{path.name}: the forms {'accept' if found else 'refuse'} it, its layer is {layer}")
    print(f"{len(rows)} fields; {count} vectors, {whole} of them also as a whole statement; {wrong} disagree with the forms")
    return 1 if wrong or count < 100 or not whole else 0


if __name__ == "__main__":
    sys.exit(main())
