"""A program in Python that verifies, asks, is told, and finds the release to run, on a broker that
runs:

    program.py BROKER CA CHANNEL ANCHOR DIRECTORY RELEASES

RELEASES is how many the channel has. DIRECTORY has the trust log in `trust.log` and a signed
release in `release`, and gets a state file.
"""

import pathlib
import sys
from collections.abc import Callable

import tidings
from tidings import Code, Device, Error, Freshness, Statement, Trust


def fails(code: Code, says: str, call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except Error as error:
        assert error.code is code and says in str(error), (error.code, str(error))
    else:
        raise AssertionError(f"{call} did not fail")


def verify(anchor: str, directory: pathlib.Path) -> None:
    log, octets = (directory / "trust.log").read_bytes(), (directory / "release").read_bytes()
    fails(Code.USAGE, "anchor: ", Trust, "nonsense", log)
    with Trust(anchor, log) as trust:
        statement = trust.verify(octets)
        assert statement.octets == octets and statement.id.startswith("sha256:")
        assert (statement.kind, statement.fields[0]) == ("release", ("Tidings", "1 release"))
        print("verified", statement.channel, statement.serial, statement.value("Version"))
        fails(Code.REFUSED, "", trust.verify, octets.replace(b"Version: ", b"Version: x", 1))
        fails(Code.BAD_FILE, "no statement", trust.verify, b"nonsense")
    fails(Code.USAGE, "was closed", trust.verify, octets)


def main(broker: str, ca: str, channel: str, anchor: str, at: str, releases: int) -> None:
    print("libtidings", tidings.version())
    directory = pathlib.Path(at)
    verify(anchor, directory)
    state = directory / "python.state"

    def device() -> Device:
        return Device(
            brokers=[broker], ca=ca, anchor=anchor, channels=[channel], state=state, oldest=True,
            properties={"machine": "a"}, identity="a program in Python",
        )

    with device() as first:
        assert (first.freshness(channel), first.head(channel)) == (Freshness.STALE, 0)
        fails(Code.WAITING, "in use", device)
        news = first.poll()
        assert [one.serial for one in news] == list(range(1, releases + 1)), news
        assert first.freshness(channel) is Freshness.CURRENT and first.head(channel) == releases
        print("polled", len(news), "statements")
    # Not dealt with: it comes again, and is watched this time.
    with device() as second:
        told: list[Statement] = []
        for statement in second.watch():
            told.append(statement)
            if statement.serial == releases:
                break
        assert told == news
        print("watched", len(told), "statements")
        assert second.wait(0.001) is None
        second.delivered()
        assert second.poll() == []
        release = second.next(channel)
        print("the release to run is", release.serial)
        assert release == news[-1]
        second.applied(channel, release.serial)
        fails(Code.NOTHING, "nothing newer", second.next, channel)
        fails(Code.USAGE, "channel: ", second.next, "no channel")
    with Trust.of_state(anchor, state) as trust:
        assert trust.verify(release.octets) == release
    other = {"anchor": anchor, "brokers": ["x"], "channels": [channel]}
    fails(Code.USAGE, "a broker is", lambda: Device(**other))  # type: ignore[arg-type]
    print("ok")


if __name__ == "__main__":
    broker, ca, channel, anchor, directory, releases = sys.argv[1:]
    main(broker, ca, channel, anchor, directory, int(releases))
