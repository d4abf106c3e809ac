"""MQTT over WebSocket. Its API takes a host and a port; the server echoes what it sends."""

import asyncio
import select
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from stdio import answer, resolve_to_this_machine


def connect(case):
    url = urlsplit(case["url"])
    # As the user wrote it: `url.hostname` is in lower case.
    host = url.netloc.rpartition(":")[0].strip("[]")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets")
    client.ws_set_options(path=url.path)
    try:
        client.connect(host, url.port)
    except mqtt.WebsocketConnectionError:
        return {}
    socket = client.socket()
    sent = case["text"].encode()
    socket.send(sent)
    received = b""
    # Its own CONNECT comes first.
    while not received.endswith(sent):
        select.select([socket], [], [], 10)
        try:
            chunk = socket.recv(4096)
        except BlockingIOError:
            continue
        if not chunk:
            raise EOFError(received)
        received += chunk
    socket.close()
    return {"echo": received[-len(sent) :].decode()}


async def attempt(case):
    return await asyncio.to_thread(connect, case)


resolve_to_this_machine()
answer(attempt)
