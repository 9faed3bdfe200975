"""A machine that speaks FleetLock, written from the protocol's description (coreos.github.io/zincati/development/fleetlock/protocol)
and the standard library alone: it goes through the states that a client has, and checks every answer by the letter.

    fleetlock.py BASE-URL GROUP

The group has one slot. Exits with 0 if the server is one that such machines can use.
"""

import http.client
import json
import sys
import urllib.parse


class Machine:
    """One client: initialization → steady → pre-reboot → finalization, and after its reboot from the beginning."""

    def __init__(self, base, group, name):
        self.url = urllib.parse.urlsplit(base)
        self.group, self.name = group, name

    def post(self, path, body=None, headers=None, method="POST"):
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=20)
        if body is None:
            body = json.dumps({"client_params": {"id": self.name, "group": self.group}})
        if headers is None:
            headers = {"fleet-lock-protocol": "true", "Content-Type": "application/json"}
        connection.request(method, self.url.path.rstrip("/") + path, body=body, headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status == 200:
            return response.status, None
        # Every other answer has a JSON object with two strings that are not empty.
        error = json.loads(text)
        assert isinstance(error["kind"], str) and error["kind"], text
        assert isinstance(error["value"], str) and error["value"], text
        return response.status, error["kind"]

    def initialize(self):
        return self.post("/v1/steady-state")[0] == 200

    def lock(self):
        return self.post("/v1/pre-reboot")[0] == 200


def main(base, group):
    one, two = Machine(base, group, "5f4dcc3b5aa765d61d8327deb882cf99"), Machine(base, group, "node2.example.org")
    # A machine that has held nothing frees it all the same, as often as it likes.
    assert one.initialize() and one.initialize() and two.initialize()
    # One goes down, the other has to wait; asking again changes nothing.
    assert one.lock() and one.lock()
    assert two.post("/v1/pre-reboot") == (409, "failed_lock")
    assert two.post("/v1/pre-reboot") == (409, "failed_lock")
    # Another one's slot is not freed by somebody who does not hold it.
    assert two.initialize()
    assert two.post("/v1/pre-reboot") == (409, "failed_lock")
    # It comes back.
    assert one.initialize()
    assert two.lock()
    assert one.post("/v1/pre-reboot") == (409, "failed_lock")
    assert two.initialize()

    # What is not the protocol is refused, by kind.
    def wrong(expected, path="/v1/pre-reboot", **more):
        found = one.post(path, **more)
        assert found == expected, (found, expected, more)

    good = json.dumps({"client_params": {"id": "a", "group": group}})
    wrong((400, "malformed_request"), body=good, headers={"Content-Type": "application/json"})
    wrong((400, "malformed_request"), body=good, headers={"fleet-lock-protocol": "false"})
    for body in ["", "{}", "[]", "null", '{"client_params": {}}', '{"client_params": {"id": "", "group": "g"}}',
                 '{"client_params": {"id": "a", "group": ""}}', '{"client_params": {"id": 1, "group": "g"}}', good + "x", "x" * 9000]:
        wrong((400, "malformed_request"), body=body)
    wrong((404, "unknown_group"), body=json.dumps({"client_params": {"id": "a", "group": "nobody-knows-it"}}))
    wrong((404, "unknown_path"), path="/v1/other")
    wrong((405, "wrong_method"), method="GET")
    # None of this has taken a slot.
    assert one.lock() and one.initialize()
    print("FleetLock: as described")


if __name__ == "__main__":
    main(*sys.argv[1:])
