"""A device in Python, written from parts 1 and 2 of the specification alone; its functions have the names of part 2.

It shares no code with the Rust library, so that the two agree by the text or not at all. Signatures are checked by the
package `cryptography`; the forms of single fields are left to `spec/check.py`.
"""

import base64
import datetime
import functools
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BEAT_LIFE_SECONDS = FUTURE_SECONDS = 86400
CHAIN_LINKS, WITHDRAWALS = 64, 16
KNOWN = set("Tidings Channel Serial Previous Time Trust Critical Expires Key Role Checkpoint Closed Signature Version Summary Details Urgency "
            "Target Barrier Not-Before Deadline Rollout Slot Apply Payload Withdraws Reason Head".split())
MISSING = "MISSING"


class Refused(Exception):
    """The requirement that is not met, and the serial of the statement."""

    def __init__(self, requirement, serial=None):
        super().__init__(requirement)
        self.requirement, self.serial = requirement, serial


@functools.cache
def holds(key, signature, signed):
    try:
        Ed25519PublicKey.from_public_bytes(octets(key.removeprefix("ed25519:"))).verify(octets(signature), signed)
        return True
    except InvalidSignature:
        return False


def demand(holds, requirement, statement):
    if not holds:
        raise Refused(requirement, statement.serial)


def seconds(text):
    return int(datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp())


def octets(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def share(text):
    """[2-30]: the first 64 bits of a hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Statement:
    def __init__(self, text):
        self.signed = "".join(line for line in text.splitlines(True) if not line.startswith("Signature: ")).encode()
        self.id = "sha256:" + hashlib.sha256(self.signed).hexdigest()
        self.fields = {}
        for line in text.removesuffix("\n").split("\n"):
            name, value = line.split(": ", 1)
            self.fields.setdefault(name, []).append(value)
        self.kind, self.channel = self["Tidings"].split()[1], self["Channel"]
        self.serial, self.time, self.trust = int(self["Serial"]), seconds(self["Time"]), int(self["Trust"] or 0)
        self.head, self.before = (self.serial, self.id), (self.serial - 1, self["Previous"])
        self.unknown = [name for names in self.all("Critical") for name in names.split() if name not in KNOWN]

    def all(self, name):
        return self.fields.get(name, [])

    def __getitem__(self, name):
        return self.all(name)[0] if name in self.fields else None

    def places(self, name):
        """What `Head` or `Checkpoint` lines name."""
        return {channel: (int(serial), digest) for channel, serial, digest in map(str.split, self.all(name))}

    def withdraws(self):
        return [(int(serial), digest) for serial, digest in map(str.split, self.all("Withdraws"))]


def bundle(text):
    texts = []
    for line in text.splitlines(True):
        if line.startswith("Tidings: "):
            texts.append("")
        texts[-1] += line
    return [Statement(text) for text in texts]


def matches(pattern, channel):
    return pattern == "*" or pattern == channel or pattern.endswith(".*") and channel.startswith(pattern[:-1])


def length(role):
    """The more specific of two patterns that match is the longer, and a channel before all others."""
    return len(role[1]) + 2 * (not role[1].endswith("*"))


class Channel:
    def __init__(self):
        self.newest = self.standing = self.evidence = self.applied = None
        self.chain, self.image, self.delivered, self.withdrawals = {}, 0, 0, {True: [], False: []}

    @property
    def links(self):
        """Serials and ids that links have led to, the one that the head names among them."""
        return {**dict([self.standing] if self.standing else []), **dict([self.newest.before] if self.newest else []), **self.chain}


class Device:
    def __init__(self, anchor):
        self.namespace, serial, digest = anchor.split()
        self.anchor, self.log = (int(serial), digest), self.namespace + ".trust"
        self.trust, self.clock, self.identity = None, None, "device"
        self.beats, self.settling, self.taken, self.trusts, self.channels, self.properties = {}, {}, [], [], {}, {}
        self.first_seen, self.monotonic, self.start = {}, 0, 0

    def known(self, channel):
        return self.channels.setdefault(channel, Channel())

    # Part 1

    def role(self, statement, trust):
        """[1-14]"""
        roles = [role for role in map(str.split, trust.all("Role")) if role[0] == statement.kind]
        if statement.kind == "beat":
            return next((role for role in roles if self.beats_of(role) == statement.channel), None)
        return max((role for role in roles if matches(role[1], statement.channel)), key=length, default=None)

    def beats_of(self, role):
        return self.namespace + ".beat" if role[1] == "*" else role[1][:-1] + "beat"

    def beat_channel(self, channel):
        roles = [role for role in map(str.split, self.trust.all("Role")) if role[0] == "beat" and matches(role[1], channel)]
        return self.beats_of(max(roles, key=length)) if roles else None

    def check(self, statement, trust=None):
        """[1-14] and [1-15]: it meets its role."""
        trust = trust or self.trust
        role = self.role(statement, trust)
        demand(role, "1-14", statement)
        keys = {key for key, name in map(str.split, trust.all("Key")) if name in role[3:]}
        signatures = map(str.split, statement.all("Signature"))
        held = {key for key, signature in signatures if key in keys and holds(key, signature, statement.signed)}
        demand(len(held) >= int(role[2]), "1-15", statement)

    def meets_role(self, statement):
        try:
            self.check(statement)
            return True
        except Refused:
            return False

    def is_closed(self, channel):
        lines = map(str.split, self.trust.all("Closed"))
        return not channel.endswith((".trust", ".beat")) and any(matches(line[0], channel) and channel not in line[1:] for line in lines)

    def take_trust(self, statement):
        """[1-16] to [1-18]"""
        if self.trust and self.trust.head == statement.head:
            return
        demand(statement.channel == self.log, "1-20", statement)
        if self.trust:
            demand(statement.before == self.trust.head, "1-17", statement)
            self.check(statement)
        else:
            demand(statement.head == self.anchor, "1-16", statement)
        demand(not statement.unknown, "1-13", statement)
        self.check(statement, statement)
        demand(set(self.trust.all("Closed") if self.trust else []) <= set(statement.all("Closed")), "1-18", statement)
        self.trust = statement
        self.trusts.append(statement)
        self.see(statement)

    def check_place(self, channel, statement):
        """[1-20] to [1-24]"""
        demand(self.trust, "1-19", statement)
        demand(statement.channel == channel, "1-20", statement)
        demand(channel.startswith(self.namespace + ".") and (statement.kind != "trust" or channel == self.log), "1-21", statement)
        demand(not self.is_closed(channel), "1-22", statement)
        demand(statement.trust <= self.trust.serial, "1-23", statement)
        settled = self.checkpoint(channel)
        if settled and settled != MISSING:
            demand(all(place == settled for place in (statement.head, statement.before) if place[0] == settled[0]), "1-24", statement)

    # Is it proven?

    def judge(self, channel, run):
        vouched, above = False, None
        for statement in reversed(run):
            self.check_place(channel, statement)
            demand(not above or above.before == statement.head, "2-5", statement)
            vouched = vouched or statement.head == self.checkpoint(channel)
            if not vouched:
                self.check(statement)
                vouched = statement.kind == "release"
            above = statement
        known = self.known(channel)
        read = set(known.links.items()) | {statement.head for statement in run}
        for place in [place for statement in run for place in statement.withdraws()]:
            # [2-17]: those of releases that were read, and others, each up to a number.
            kept = known.withdrawals[place in read]
            if place not in known.withdrawals[True]:
                kept[:] = sorted({*kept, place})[-WITHDRAWALS:]

    def checkpoint(self, channel):
        if channel.endswith((".trust", ".beat")):
            return None
        places, beats = self.trust.places("Checkpoint"), self.beat_channel(channel)
        if channel in places or beats not in places:
            return places.get(channel)
        beat = self.settling.get(beats)
        return beat.places("Head").get(channel) if beat and beat.head == places[beats] else MISSING

    def take_settled_beat(self, beat):
        if beat.kind != "beat" or self.trust.places("Checkpoint").get(beat.channel) != beat.head:
            return "refused"
        self.settling[beat.channel] = beat
        return "taken"

    # Where does it stand?

    def restart(self, channel):
        known, settled = self.known(channel), self.checkpoint(channel)
        if not known.newest or settled == MISSING:
            return None
        if self.meets_role(known.newest) or known.newest.head == settled:
            if not settled or known.standing == settled or known.links.get(settled[0]) == settled[1]:
                known.standing = settled
                return None
        return settled[0] if settled else 1

    def place(self, channel, run, hole):
        """What comes of a run, and whether the chain is another one after it."""
        known, settled = self.known(channel), self.checkpoint(channel)
        settled = None if settled == MISSING else settled
        first, last, names = run[0].serial, run[-1].serial, {statement.head for statement in run}
        if not known.newest:
            return f"from {settled[0]}" if settled and first > settled[0] and not hole else self.replace(channel, run, settled)
        head, links = known.newest, known.links
        other = [s for s in run if links.get(s.serial, s.id) != s.id or links.get(s.serial - 1, s["Previous"]) != s["Previous"]]
        named = self.named(channel) if self.live(channel) else None
        restart = self.restart(channel)
        if restart:
            if not settled and not other and last > head.serial:
                return self.append(known, run, hole)
            if settled and last < settled[0]:
                return None if other else self.append(known, run, hole)
            lowest = min(restart, head.serial + 1)
            if first > lowest and not hole:
                return f"from {lowest}"
            behind = last < head.serial and self.meets_role(head) and named not in names
            return None if behind else self.replace(channel, run, settled)
        if named and self.elsewhere(known, named, settled):
            leads = head.head in names and first < head.serial
            if named[0] <= head.serial and not leads or other and named in names:
                lowest = min([named[0], *known.chain] + ([settled[0]] if settled else []))
                if first > lowest and not hole:
                    return f"from {lowest}"
                if named in names:
                    return self.replace(channel, run, settled)
        if other:
            if settled and other[0].serial <= settled[0]:
                return None
            if settled and first > settled[0] and not hole:
                return f"from {settled[0]}"
            known.evidence = self.undecided(channel) or (head, run[run.index(other[0]):])
            return "fork"
        return self.append(known, run, hole)

    def elsewhere(self, known, named, settled):
        standing = settled and known.standing == settled and named[0] <= settled[0]
        return known.links.get(named[0]) != named[1] and not standing

    def append(self, known, run, hole):
        head = known.newest
        if run[-1].serial < head.serial:
            return None
        if run[0].serial > head.serial + 1 and not hole:
            return f"from {head.serial + 1}"
        self.join(known, run)
        return "new"

    def replace(self, channel, run, settled):
        known = self.known(channel)
        left = [place for place in known.chain.items() if place[0] >= run[0].serial and place not in {s.head for s in run}]
        shared = [s.serial for s in run if known.links.get(s.serial) == s.id]
        if left:
            known.delivered = min(known.delivered, max(shared, default=run[0].serial - 1))
        self.join(known, run)
        if settled and (run[0].serial > settled[0] or any(statement.head == settled for statement in run)):
            known.standing = settled
        return "other" if left else "new"

    def join(self, known, run):
        chain, links, first = {statement.serial: statement.id for statement in run}, known.links, run[0]
        if links.get(first.serial) == first.id or links.get(first.serial - 1) == first["Previous"]:
            chain |= {serial: digest for serial, digest in known.chain.items() if serial < first.serial}
        if not known.newest:
            known.delivered = max(known.delivered, first.serial - 1)
        known.chain, known.newest = dict(sorted(chain.items())[-CHAIN_LINKS - 1:]), run[-1]

    def undecided(self, channel):
        """[2-16]"""
        known = self.known(channel)
        if known.evidence:
            ours, theirs = known.evidence
            low = min(ours.serial, theirs[0].serial)
            named, settled = self.named(channel) if self.live(channel) else None, self.checkpoint(channel)
            over = named and named[0] >= low and known.links.get(named[0]) == named[1]
            over = over or settled and known.standing == settled and settled[0] >= low
            if over or not self.meets_role(ours) or not self.proves(channel, theirs):
                known.evidence = None
        return known.evidence

    def proves(self, channel, run):
        try:
            self.judge(channel, run)
            return True
        except Refused:
            return False

    # What time is it, and is anything held back?

    def see(self, statement, clock=None):
        self.first_seen[statement.head] = (clock, self.monotonic, self.start)

    def ran(self, statement):
        _, monotonic, start = self.first_seen[statement.head]
        return self.monotonic - monotonic if start == self.start else 0

    def signed_time(self, beats):
        """[2-19]: of each proven beat; those of an earlier start of the machine are seen first when it starts."""
        proven = [beat for beat in self.taken if beat.channel == beats and self.meets_role(beat)]
        return max(statement.time + self.ran(statement) for statement in [*self.trusts, *proven])

    def good_clock(self, beats):
        return self.clock if self.clock is not None and self.clock + FUTURE_SECONDS >= self.signed_time(beats) else None

    def time(self, channel):
        beats = self.beat_channel(channel)
        return max(self.signed_time(beats), self.good_clock(beats) or 0)

    def take_beat(self, beat):
        """[2-10] to [2-12]"""
        self.check_place(beat.channel, beat)
        self.check(beat)
        demand(not beat.unknown, "1-13", beat)
        clock = self.good_clock(beat.channel)
        demand(clock is None or beat.time <= clock + FUTURE_SECONDS, "2-11", beat)
        known = self.beats.get(beat.channel)
        if not known or not self.meets_role(known) or known.serial < beat.serial:
            self.beats[beat.channel] = beat
            self.taken.append(beat)
            self.see(beat, clock)
            for channel in self.channels:
                self.undecided(channel)

    def newest_beat(self, channel):
        beat = self.beats.get(self.beat_channel(channel))
        return beat if beat and self.meets_role(beat) else None

    def named(self, channel):
        beat = self.newest_beat(channel)
        return beat.places("Head").get(channel) if beat else None

    def live(self, channel):
        """[2-20]"""
        beat = self.newest_beat(channel)
        if not beat or beat.places("Head").get(self.log) != self.trust.head:
            return False
        life, now = min(seconds(beat["Expires"]) - beat.time, BEAT_LIFE_SECONDS), self.good_clock(beat.channel)
        then, _, start = self.first_seen[beat.head]
        if start != self.start and now is None:
            return False
        passed = self.ran(beat) if start == self.start else now - then if then is not None else 0
        return self.time(channel) < beat.time + life and passed < life

    def freshness(self, channel):
        known, beat, named, live = self.known(channel), self.newest_beat(channel), self.named(channel), self.live(channel)
        trust = (beat.places("Head").get(self.log) if beat else None) or self.trust.head
        links = known.links
        if named and links.get(named[0], named[1]) != named[1] or trust[0] == self.trust.serial and trust != self.trust.head:
            return "FORKED"
        if self.undecided(channel) and not live:
            return "FORKED"
        if named and named[0] > (known.newest.serial if known.newest else 0) or trust[0] > self.trust.serial:
            return "BEHIND"
        current = live and named and links.get(named[0]) == named[1] and not self.restart(channel)
        return "CURRENT" if current else "STALE"

    # The release to run

    def clear(self, channel, log):
        """The serial, or nothing to do."""
        self.judge(channel, log)
        known, top = self.known(channel), self.cover(channel)
        there = {statement.serial: statement for statement in log}
        if not log or not known.newest or log[-1].head != known.newest.head or top not in there:
            raise Refused("2-28")
        applied, floor = known.applied, 0 if known.applied else known.image
        if applied and (there.get(applied.serial, log[0]).id == applied.id or applied.head == self.checkpoint(channel) or self.meets_role(applied)):
            floor = applied.serial
        found = [s for s in log if floor <= s.serial <= top and s.kind == "release" and self.is_meant(s) and self.is_due(s)]
        if not found:
            if log[0].serial > max(floor, 1):
                raise Refused("2-28")
            return "nothing"
        release = found[-1]
        self.check_stopped(channel, release, log)
        while floor < int(release["Barrier"] or 0):
            serial = int(release["Barrier"])
            if serial not in there:
                raise Refused("2-28")
            release = there[serial]
            if release.kind != "release" or not self.is_meant(release) or not self.is_due(release):
                raise Refused("2-31")
            self.check_stopped(channel, release, log)
        return "nothing" if applied and release.head == applied.head or floor == known.image == release.serial else str(release.serial)

    def check_trust(self, channel):
        if not self.trust:
            raise Refused("1-19")
        if self.is_closed(channel):
            raise Refused("1-22")
        if self.time(channel) >= seconds(self.trust["Expires"]):
            raise Refused("2-24")

    def cover(self, channel):
        self.check_trust(channel)
        if self.checkpoint(channel) == MISSING:
            raise Refused("2-9")
        if self.restart(channel):
            raise Refused("2-14")
        freshness = self.freshness(channel)
        if self.beat_channel(channel):
            if freshness != "CURRENT":
                raise Refused("2-25")
            return self.named(channel)[0]
        if freshness == "FORKED":
            raise Refused("2-16")
        newest = self.known(channel).newest
        if not newest:
            raise Refused("2-25")
        return newest.serial

    def finish(self, channel, serial, log):
        """[2-26]"""
        self.judge(channel, log)
        self.cover(channel)
        begun = next((statement for statement in log if statement.serial == serial), None)
        if not begun or log[-1].head != self.known(channel).newest.head:
            raise Refused("2-28")
        self.check_stopped(channel, begun, log)

    def check_stopped(self, channel, release, log):
        met = [place for statement in log for place in statement.withdraws()]
        if release.head in sum(self.known(channel).withdrawals.values(), met):
            raise Refused("2-33")
        if release.unknown:
            raise Refused("1-13")

    def is_meant(self, release):
        targets = [dict(word.split("=", 1) for word in target.split()).items() for target in release.all("Target")]
        return not targets or any(target <= self.properties.items() for target in targets)

    def is_due(self, release):
        now = self.time(release.channel)
        if release["Not-Before"] and now < seconds(release["Not-Before"]):
            return False
        if not release["Rollout"] or release["Deadline"] and now >= seconds(release["Deadline"]):
            return True
        start, window, *options = release["Rollout"].split()
        cohort = dict(option.split("=", 1) for option in options).get("cohort")
        identity = self.properties.get(cohort, self.identity)
        hashed = share(f"tidings rollout 1\n{release.channel}\n{release['Previous']}\n{identity}")
        return now >= seconds(start) + (hashed * int(window) >> 64)
