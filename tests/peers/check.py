"""Holds what the aggregator sent against libraries that it does not share a line with.

Reads {"secret", "requests": [{"path", "headers", "body"}]} from standard input and prints one line a
request that was accepted. Ends with 1 and the reason at the first that was not.
"""

import json
import sys
from datetime import datetime

from httpx2 import MockTransport, Response
from pagerduty import EventsApiV2Client
from slack_sdk.models.blocks import Block
from standardwebhooks import Webhook


def refuses(check, *given):
    """Whether the check refuses this: a check that accepts anything proves nothing."""
    try:
        check(*given)
    except Exception:
        return True
    return False


def webhook(secret, request):
    body, headers = request["body"], request["headers"]
    Webhook(secret).verify(body, headers)
    assert refuses(Webhook(secret).verify, body + " ", headers), "a changed body was accepted"
    return json.loads(body)["type"]


def blocks(message):
    for block in Block.parse_all(message["blocks"]):
        block.validate_json()


def slack(request):
    message = json.loads(request["body"])
    blocks(message)
    assert message["text"]
    too_long = {"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}
    assert refuses(blocks, {"blocks": [too_long]}), "a header too long was accepted"
    return message["text"]


def of_official_client(event):
    """What PagerDuty's own client sends when asked for the same."""
    taken = []

    def take(request):
        taken.append((request.url.path, json.loads(request.content)))
        return Response(202, json={"status": "success", "dedup_key": event["dedup_key"]})

    client = EventsApiV2Client(event["routing_key"], transport=MockTransport(take))
    known = {"routing_key", "event_action", "dedup_key"}
    rest = {name: value for name, value in event.items() if name not in known}
    client.send_event(event["event_action"], dedup_key=event["dedup_key"], **rest)
    return taken[0]


def pagerduty(request):
    event = json.loads(request["body"])
    path, official = of_official_client(event)
    assert request["path"] == path, f"{request['path']} is not {path}"
    assert event == official, f"{event} is not {official}"
    assert len(request["body"]) <= 512 * 1024 and len(event["dedup_key"]) <= 255
    if event["event_action"] == "trigger":
        payload = event["payload"]
        assert payload["severity"] in {"critical", "error", "warning", "info"}
        assert payload["source"] and 0 < len(payload["summary"]) <= 1024
        datetime.fromisoformat(payload["timestamp"][:19])
    else:
        assert "payload" not in event
    return f"{event['event_action']} {event['dedup_key']}"


def main():
    given = json.load(sys.stdin)
    for request in given["requests"]:
        path = request["path"]
        if path.startswith("/hook"):
            said = webhook(given["secret"], request)
        elif path.startswith("/services"):
            said = slack(request)
        else:
            said = pagerduty(request)
        print(f"{path} accepted: {said}")


if __name__ == "__main__":
    main()
