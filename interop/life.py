"""The device of `device.py` lives the lives in spec/vectors/sequences."""

import pathlib
import sys

from device import Device, Refused, bundle, seconds


def read(device, channel, run, hole):
    device.judge(channel, run)
    known = device.known(channel)
    found = device.place(channel, run, hole) if run else None
    if found not in (None, "new", "other"):
        return found
    behind = found is None or run[-1].serial < known.newest.serial
    new = [] if behind else [str(statement.serial) for statement in run if statement.serial > known.delivered]
    if found:
        known.delivered = known.newest.serial
    return f"{found or 'new'} {','.join(new) or 'none'}"


def live(device, step, statements):
    """What comes of a step; none for one that only says what is so."""
    what, *words = step.split()
    channel = words[0] if words else None
    if what == "clock":
        device.clock = None if channel == "none" else seconds(channel)
    elif what == "passes":
        device.monotonic += int(channel)
        device.clock = None if device.clock is None else device.clock + int(channel)
    elif what == "restart":
        device.start, device.monotonic = device.start + 1, 0
        device.taken = list(device.beats.values())
    elif what == "profile":
        device.identity, device.properties = channel, dict(word.split("=", 1) for word in words[1:])
    elif what == "applied":
        device.known(channel).applied = statements[0]
    elif what == "came-with":
        device.known(channel).image = int(words[1])
    elif what == "delivered":
        device.known(channel).delivered = int(words[1])
    elif what == "state":
        return device.freshness(channel)
    elif what == "settled-beat":
        return device.take_settled_beat(statements[0])
    else:
        return offered(device, what, words, statements)
    return None


def offered(device, what, words, statements):
    try:
        if what == "trust":
            for statement in statements:
                device.take_trust(statement)
            return f"taken {device.trust.serial}"
        if what == "beat":
            device.take_beat(statements[0])
            return "taken"
        if what == "run":
            return device.clear(words[0], statements)
        if what == "finish":
            device.finish(words[0], int(words[1]), statements)
            return "yes"
        return read(device, words[0], statements, what == "hole")
    except Refused as refused:
        serial = f"{refused.serial} " if what in ("trust", "read", "hole") else ""
        return {"run": "none ", "finish": "no "}.get(what, "refused ") + serial + refused.requirement


def main():
    count = wrong = 0
    paths = sorted((pathlib.Path(__file__).parent.parent / "spec/vectors/sequences").iterdir())
    for path in paths:
        head, *steps = path.read_text().split("\n\n")
        device = Device(next(line.removeprefix("anchor: ") for line in head.splitlines() if line.startswith("anchor: ")))
        for number, step in enumerate(steps, 1):
            line, _, rest = step.removesuffix("\n").partition("\n")
            step, _, expected = line.partition(" => ")
            found = live(device, step, bundle(rest + "\n" if rest else ""))
            count += 1
            if (found or "") != expected:
                wrong += 1
                print(f"{path.name}, step {number}: {line}: found {found}")
    print(f"{len(paths)} lives of {count} steps in another implementation; {wrong} steps go otherwise")
    return 1 if wrong or len(paths) < 15 or count < 150 else 0


if __name__ == "__main__":
    sys.exit(main())
