"""A stock client, Python's nntplib (in the standard library up to 3.12), reads a broker over TCP and over TLS.

usage: nntplib_reader.py NNTP_HOST:PORT NNTPS_HOST:PORT CA_FILE CHANNEL RELEASES
"""

import datetime
import hashlib
import ssl
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
import nntplib  # noqa: E402


def check(server, channel, releases):
    capabilities = server.getcapabilities()
    assert "READER" in capabilities and "XWATCH" in capabilities and capabilities["VERSION"] == ["2"], capabilities
    assert server.getwelcome().startswith("200 "), server.getwelcome()

    _, groups = server.list()
    # Beats come by themselves.
    listed = {group.group for group in groups if not group.group.endswith(".beat")}
    assert listed == {channel, channel.split(".")[0] + ".trust"}, groups
    _, descriptions = server.descriptions("*")
    assert descriptions[channel] == "Signed announcements of releases", descriptions

    _, count, first, last, name = server.group(channel)
    assert (count, first, last, name) == (releases, 1, releases, channel)

    _, overviews = server.over((first, last))
    assert [number for number, _ in overviews] == list(range(1, releases + 1))
    for number, overview in overviews:
        assert overview["subject"] == f"{channel} 1.{number}", overview
        assert nntplib.decode_header(overview["from"]) == f"tidings@{channel}.invalid"

    previous = "-"
    for number in range(first, last + 1):
        _, article = server.article(number)
        lines = article.lines
        body = lines[lines.index(b"") + 1:]
        signed = b"".join(line + b"\n" for line in body if not line.startswith(b"Signature: "))
        digest = hashlib.sha256(signed).hexdigest()
        assert article.message_id == f"<{number}.{digest}@{channel}>", article.message_id
        assert b"Previous: " + previous.encode() in body, (number, previous)
        previous = "sha256:" + digest
        _, by_id = server.body(article.message_id)
        assert by_id.lines == body

    _, subjects = server.xhdr("subject", f"{first}-{last}")
    assert len(subjects) == releases and subjects[0] == ("1", f"{channel} 1.1"), subjects[:1]
    _, ids = server.newnews(channel, datetime.datetime(2026, 1, 1))
    assert len(ids) == releases
    _, new = server.newgroups(datetime.datetime(2026, 1, 1))
    assert len([group for group in new if not group.group.endswith(".beat")]) == 2, new
    _, now = server.date()
    assert now.year >= 2026
    _, number, message_id = server.stat(first)
    assert number == first and server.next()[1] == first + 1 and server.last()[2] == message_id
    assert server.help()[1]
    try:
        server.article(last + 1)
        raise AssertionError("an article that is not there")
    except nntplib.NNTPTemporaryError as refusal:
        assert refusal.response.startswith("423 ")

    # Posting works as far as it should: what nobody signed is refused with a reason.
    try:
        server.post(b"From: me@example.org\r\nNewsgroups: x\r\nSubject: hello\r\n\r\nhello\r\n")
        raise AssertionError("an unsigned article was taken")
    except nntplib.NNTPTemporaryError as refusal:
        assert refusal.response.startswith("441 statement line 1: "), refusal.response
    server.quit()


def main():
    nntp, nntps, ca, channel, releases = sys.argv[1:]
    host, port = nntp.rsplit(":", 1)
    check(nntplib.NNTP(host, int(port), timeout=30), channel, int(releases))
    host, port = nntps.rsplit(":", 1)
    context = ssl.create_default_context(cafile=ca)
    check(nntplib.NNTP_SSL(host, int(port), ssl_context=context, timeout=30), channel, int(releases))
    print(f"nntplib: {releases} announcements of {channel} listed, overviewed and read over TCP and TLS")


if __name__ == "__main__":
    main()
