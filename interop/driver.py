"""The device of `device.py`, driven by `tidings-conformance device`: see tests/src/bin/conformance/README.md."""

import itertools
import sys

from device import Device, bundle
from life import live


def main():
    device = None
    for line in sys.stdin:
        what, _, rest = line.rstrip("\n").partition(" ")
        answer = "unable"
        if what == "life":
            device, answer = Device(rest), "ok"
        elif what == "step":
            count, _, step = rest.partition(" ")
            statements = bundle("".join(itertools.islice(sys.stdin, int(count))))
            answer = live(device, step, statements) or "ok"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
