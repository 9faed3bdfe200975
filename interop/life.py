"""A device in Python, written from sections 2 to 6 of the specification alone: it lives the lives in spec/vectors/sequences.

It shares no code with the Rust library, so that the two agree by the text or not at all. Signatures are checked by the
package `cryptography`; the grammar of single fields is left to `spec/check.py`.
"""

import base64
import datetime
import hashlib
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BEAT_LIFE_SECONDS = 86400
KNOWN = {"Tidings", "Channel", "Serial", "Previous", "Time", "Trust", "Critical", "Signature", "Version", "Summary", "Details", "Urgency",
         "Target", "Barrier", "Not-Before", "Deadline", "Rollout", "Slot", "Apply", "Payload", "Withdraws", "Reason", "Fallback", "Expires",
         "Key", "Role", "Checkpoint", "Head"}


class Refused(Exception):
    """A requirement that is not met, and the serial of the statement."""

    def __init__(self, requirement, serial=None):
        super().__init__(requirement)
        self.requirement, self.serial = requirement, serial


def seconds(text):
    return int(datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp())


def octets(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Statement:
    def __init__(self, text):
        lines = [line.split(": ", 1) for line in text.splitlines()]
        signed = [line for line in text.splitlines(keepends=True) if not line.startswith("Signature: ")]
        self.signed = "".join(signed).encode()
        self.id = "sha256:" + hashlib.sha256(self.signed).hexdigest()
        self.fields = {}
        for name, value in lines:
            self.fields.setdefault(name, []).append(value)
        self.kind = self["Tidings"].split()[1]
        self.channel, self.serial, self.previous = self["Channel"], int(self["Serial"]), self["Previous"]
        self.time, self.trust = seconds(self["Time"]), int(self["Trust"] or 0)
        self.signatures = [(key, signature) for key, signature in (value.split() for value in self.all("Signature"))]
        self.unknown = [name for names in self.all("Critical") for name in names.split() if name not in KNOWN]

    def all(self, name):
        return self.fields.get(name, [])

    def __getitem__(self, name):
        return self.all(name)[0] if name in self.fields else None

    @property
    def head(self):
        return self.serial, self.id

    @property
    def before(self):
        return self.serial - 1, self.previous

    def places(self, name):
        """What `Head` or `Checkpoint` lines name, in their order."""
        split = (value.split() for value in self.all(name))
        return {channel: (int(serial), digest) for channel, serial, digest in split}


def bundle(text):
    starts = [i for i, line in enumerate(text.splitlines()) if line.startswith("Tidings: ")]
    lines = text.splitlines(keepends=True)
    return [Statement("".join(lines[a:b])) for a, b in zip(starts, starts[1:] + [len(lines)])]


class Trust:
    """A trust statement, as it judges others."""

    def __init__(self, statement):
        self.statement, self.serial = statement, statement.serial
        self.keys = {key: name for key, name in (value.split() for value in statement.all("Key"))}
        self.checkpoints = statement.places("Checkpoint")
        self.expires = seconds(statement["Expires"])

    def role(self, kind, channel):
        """4.3-1: the most specific of the roles that match."""
        def length(pattern):
            if pattern == "*" or pattern.endswith(".*") and channel.startswith(pattern[:-1]):
                return len(pattern)
            return len(pattern) + 2 if pattern == channel else 0
        roles = [value.split() for value in self.statement.all("Role")]
        matching = [role for role in roles if role[0] == kind and length(role[1])]
        return max(matching, key=lambda role: length(role[1]), default=None)

    def signers(self, statement):
        """5.2-3."""
        names = set()
        for key, signature in statement.signatures:
            if key in self.keys:
                try:
                    Ed25519PublicKey.from_public_bytes(octets(key.removeprefix("ed25519:"))).verify(octets(signature), statement.signed)
                except InvalidSignature:
                    raise Refused("5.2-3", statement.serial) from None
                names.add(self.keys[key])
        return names

    def meets(self, kind, channel, signers):
        role = self.role(kind, channel)
        return bool(role) and len(signers.intersection(role[3:])) >= int(role[2])

    def judge(self, statement):
        signers = self.signers(statement)
        if not self.meets(statement.kind, statement.channel, signers):
            raise Refused("5.2-4", statement.serial)
        return signers

    def verify(self, channel, run):
        """5.3: from the newest down."""
        checkpoint = self.checkpoints.get(channel)
        settled, vouchers, wanted = False, [], None
        for statement in reversed(run):
            if statement.channel != channel:
                raise Refused("5.2-1", statement.serial)
            if checkpoint and checkpoint[0] == statement.serial and checkpoint[1] != statement.id:
                raise Refused("5.3-2", statement.serial)
            if checkpoint and checkpoint[0] == statement.serial - 1 and checkpoint[1] != statement.previous:
                raise Refused("5.3-2", statement.serial)
            if statement.trust > self.serial:
                raise Refused("5.2-2", statement.serial)
            if wanted and wanted != statement.head:
                raise Refused("5.3-1", statement.serial)
            settled = settled or checkpoint == statement.head
            if not settled and not any(self.meets(statement.kind, channel, signers) for signers in vouchers):
                vouchers.append(self.judge(statement))
            wanted = statement.before

    def proves(self, statement):
        try:
            self.verify(statement.channel, [statement])
            return True
        except Refused:
            return False


class Known:
    """5.1-1, of one channel."""

    def __init__(self):
        self.newest = self.fork = self.stands_on = self.applied = self.passed = self.stopped = None
        self.due = (0, 0)


class Device:
    def __init__(self, anchor):
        self.namespace, self.anchor = anchor.split()
        self.trust, self.channels, self.clock, self.floor = None, {}, 0, 0

    def known(self, channel):
        return self.channels.setdefault(channel, Known())

    def proven(self, channel):
        newest = self.known(channel).newest
        return newest if newest and self.trust.proves(newest) else None

    def now(self):
        return max(self.clock, self.floor)

    def step(self, statement):
        """5.4."""
        if self.trust and self.trust.statement.head == statement.head:
            return
        after = Trust(statement)
        if not self.trust:
            if (statement.serial, statement.id) != (1, self.anchor):
                raise Refused("5.4-1", statement.serial)
        else:
            if statement.before != self.trust.statement.head:
                raise Refused("5.4-2", statement.serial)
            self.trust.judge(statement)
        after.judge(statement)
        if statement.unknown:
            raise Refused("3.3-1", statement.serial)
        self.trust = after

    def take_trust(self, statements):
        try:
            for statement in statements:
                self.step(statement)
        finally:
            if self.trust:
                times = [newest.time for newest in map(self.proven, filter(self.counts, list(self.channels))) if newest]
                self.floor = max([self.trust.statement.time] + times)

    def counts(self, channel):
        """5.1-2: whose times make the floor."""
        return channel.endswith(".beat") or not self.trust.role("beat", self.namespace + ".beat")

    def note(self, channel, statement):
        self.known(channel).newest = statement
        if self.counts(channel) and self.proven(channel):
            self.floor = max(self.floor, statement.time)

    def take_beat(self, beat):
        """5.5-2."""
        if beat.trust > self.trust.serial:
            raise Refused("5.2-2", beat.serial)
        self.trust.judge(beat)
        if beat.unknown:
            raise Refused("3.3-1", beat.serial)
        known = self.proven(beat.channel)
        if not known or known.serial < beat.serial:
            self.note(beat.channel, beat)
            for known in self.channels.values():
                known.due = (known.due[1], known.newest.serial if known.newest else 0)

    def beat(self):
        return self.proven(self.namespace + ".beat")

    def take_shard(self, shard):
        """5.5-3."""
        beat = self.beat()
        if beat and beat.places("Head").get(shard.channel) == shard.head and not shard.unknown:
            self.note(shard.channel, shard)

    def named(self, channel):
        beat = self.beat()
        if not beat:
            return None
        heads = beat.places("Head")
        shards = [(name, head) for name, head in heads.items() if name.endswith(".beat")]
        if channel in heads or not shards:
            return heads.get(channel)
        share = int.from_bytes(hashlib.sha256(f"tidings beat 1\n{channel}".encode()).digest()[:8], "big")
        name, head = shards[share * len(shards) >> 64]
        shard = self.known(name).newest
        return shard.places("Head").get(channel) if shard and shard.head == head else None

    def checkpoint(self, channel):
        return self.trust.checkpoints.get(channel)

    def stands(self, channel):
        """6-5: whether the head is known to stand on the checkpoint, if it is not below it."""
        checkpoint, known = self.checkpoint(channel), self.known(channel)
        above = checkpoint and known.newest and checkpoint[0] <= known.newest.serial
        return not above or checkpoint in (known.newest.head, known.stands_on)

    def state(self, channel):
        """5.5-4."""
        known, log = self.known(channel), self.namespace + ".trust"
        if known.fork:
            return "FORKED"
        for name, newest in ((log, self.trust.statement), (channel, known.newest)):
            named = self.named(name)
            if named and (not newest or named[0] > newest.serial):
                return "BEHIND"
            if named and named[0] == newest.serial and named != newest.head:
                return "FORKED"
        named, beat = self.named(channel), self.beat()
        if named and named[0] == known.newest.serial - 1 and named != known.newest.before:
            return "FORKED"
        live = beat and self.now() < min(seconds(beat["Expires"]), beat.time + BEAT_LIFE_SECONDS)
        if not live or not named or not self.named(log) or not self.stands(channel) or named[0] < known.due[0]:
            return "STALE"
        return "CURRENT"

    def read(self, channel, run):
        """6-1, 6-5, 6-6: the new serials, or what is wrong."""
        self.trust.verify(channel, run)
        known, checkpoint = self.known(channel), self.checkpoint(channel)
        head = known.newest
        there = any(statement.head == checkpoint for statement in run)
        contradicts = head and any(
            statement.serial == head.serial and statement.id != head.id or statement.serial == head.serial + 1 and statement.previous != head.id
            for statement in run)
        decided = known.fork and checkpoint and checkpoint[0] >= known.fork
        new, other = [s for s in run if not head or s.serial > head.serial], False
        if head and (decided or not self.stands(channel)):
            if not there:
                return f"from {checkpoint[0]}" if run[0].serial > checkpoint[0] else "new none"
            if contradicts or run[-1].serial < head.serial and not self.proven(channel):
                new, other = run, True
            elif run[-1].serial < head.serial:
                return "new none"
            known.fork = None
        elif known.fork:
            return "fork"
        elif contradicts and there and checkpoint[0] > head.serial:
            new, other = run, True
        elif contradicts and checkpoint and checkpoint[0] <= head.serial and run[0].serial > checkpoint[0]:
            return f"from {checkpoint[0]}"
        elif contradicts:
            known.fork = head.serial
            return "fork"
        stood = head and head.head == checkpoint
        if other:
            known.passed = min(known.passed or 0, run[0].serial - 1) or None
            known.stopped, known.due = None, (0, 0)
        if new:
            self.note(channel, new[-1])
        if (there or stood) and known.newest and checkpoint[0] <= known.newest.serial:
            known.stands_on = checkpoint
        return "new " + (",".join(str(statement.serial) for statement in new) or "none")

    def clear(self, channel, serial, run):
        """5.6; changes nothing but what withdrawal was met."""
        known = self.known(channel)
        if known.fork or not known.newest:
            return "no 5.6-2"
        ahead = Device(f"{self.namespace} {self.anchor}")
        ahead.__dict__.update(self.__dict__)
        ahead.channels = {name: Known() for name in self.channels}
        for name, one in self.channels.items():
            ahead.channels[name].__dict__.update(one.__dict__)
        try:
            read = ahead.read(channel, run)
        except Refused:
            return "no 5.6-1"
        complete = run[0].serial == serial and any(s.head == known.newest.head for s in run) and run[-1].serial >= (known.stopped or 0)
        if not read.startswith("new") or not complete or not ahead.stands(channel):
            return "no 5.6-1"
        named = self.named(channel)
        if named and any(s.serial == named[0] and s.head != named for s in run):
            return "no 5.6-2"
        state, release = ahead.state(channel), run[0]
        if state != "CURRENT" and not (state == "STALE" and not self.trust.role("beat", self.namespace + ".beat")):
            return "no 5.6-2"
        if ahead.now() >= self.trust.expires:
            return "no 5.6-3"
        if release.kind != "release" or release.unknown:
            return "no 5.6-4"
        withdrawals = [s for s in run if s.kind == "withdraw"]
        stops = [s.serial for s in withdrawals if int(s["Withdraws"]) == serial]
        if stops:
            known.stopped = max([known.stopped or 0] + stops)
            return "no 5.6-5"
        begun = self.clock if self.clock >= self.trust.statement.time else ahead.now()
        if release["Not-Before"] and begun < seconds(release["Not-Before"]):
            return "no 5.6-6"
        applied = known.applied or 0
        way_back = any(int(s["Withdraws"]) == applied and s["Fallback"] == str(serial)
                       and self.trust.meets("release", channel, self.trust.signers(s)) for s in withdrawals)
        if applied > serial and not way_back:
            return "no 5.6-7"
        if (known.passed or 0) < int(release["Barrier"] or 0):
            return "no 5.6-8"
        return "yes"


def live(device, line, statements):
    """One step: what came of it, in the words of the vector; none where there is nothing to compare."""
    what, rest = line.split(": ", 1)
    first, *more = rest.split(" ")
    if what == "clock":
        device.clock = seconds(rest)
    elif what == "applied":
        device.known(first).applied = device.known(first).passed = int(more[0])
    elif what == "shard":
        device.take_shard(statements[0])
    elif what == "state":
        return f"state: {first} {device.state(first)}"
    elif what == "clear":
        return f"clear: {first} {more[0]} {device.clear(first, int(more[0]), statements)}"
    else:
        try:
            if what == "trust":
                device.take_trust(statements)
                return f"trust: taken {device.trust.serial}"
            if what == "beat":
                device.take_beat(statements[0])
                return "beat: taken"
            return f"read: {first} {device.read(first, statements)}"
        except Refused as refused:
            who = {"trust": f"refused {refused.serial}", "beat": "refused", "read": f"{first} refused {refused.serial}"}[what]
            return f"{what}: {who} {refused.requirement}"
    return None


def main():
    count = wrong = 0
    paths = sorted((pathlib.Path(__file__).parent.parent / "spec/vectors/sequences").iterdir())
    for path in paths:
        head, *steps = path.read_text().split("\n\n")
        device = Device(next(line.removeprefix("anchor: ") for line in head.splitlines() if line.startswith("anchor: ")))
        for step in steps:
            line, _, rest = step.rstrip("\n").partition("\n")
            found = live(device, line, bundle(rest))
            count += 1
            if found not in (None, line):
                wrong += 1
                print(f"{path.name}: {line}: found {found}")
    print(f"{len(paths)} lives of {count} steps in another implementation; {wrong} steps go otherwise")
    return 1 if wrong or len(paths) < 15 or count < 150 else 0


if __name__ == "__main__":
    sys.exit(main())
