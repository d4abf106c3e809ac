"""WebSocket over HTTP/3 by aioquic: reads a JSON array of cases, and prints one of results."""

import asyncio
import json
import ssl
import sys
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage


class WithoutPush(H3Connection):
    """Does not send MAX_PUSH_ID. It is valid, but h3x 0.7.0 closes the connection at it."""

    def _init_connection(self):
        self._max_push_id = None
        super()._init_connection()


class Client(QuicConnectionProtocol):
    """Puts the events of its one request into a queue."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = WithoutPush(self._quic)
        self.events = asyncio.Queue()

    def quic_event_received(self, event):
        for it in self.http.handle_event(event):
            self.events.put_nowait(it)

    def request(self, url, origin):
        stream = self._quic.get_next_available_stream_id()
        headers = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":authority", url.netloc.encode()),
            (b":path", url.path.encode()),
            (b"sec-websocket-version", b"13"),
        ]
        if origin:
            headers.append((b"origin", origin.encode()))
        self.http.send_headers(stream, headers)
        self.transmit()
        return stream

    def send(self, stream, data, end=False):
        self.http.send_data(stream, data, end)
        self.transmit()

    async def next(self, kind):
        while True:
            event = await self.events.get()
            if isinstance(event, kind):
                return event


async def handshake(case):
    url = urlsplit(case["url"])
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(url.hostname, url.port, configuration=configuration, create_protocol=Client) as client:
        stream = client.request(url, case.get("origin"))
        head = await client.next(HeadersReceived)
        result = {"status": int(dict(head.headers)[b":status"])}
        if result["status"] != 200:
            return result

        socket = Connection(ConnectionType.CLIENT)
        client.send(stream, socket.send(TextMessage(case["text"])))
        while "close" not in result:
            socket.receive_data((await client.next(DataReceived)).data)
            for event in socket.events():
                if isinstance(event, TextMessage):
                    result["echo"] = event.data
                    client.send(stream, socket.send(CloseConnection(1000)))
                elif isinstance(event, CloseConnection):
                    result["close"] = event.code
        return result


async def main():
    results = [await asyncio.wait_for(handshake(case), 20) for case in json.load(sys.stdin)]
    print(json.dumps(results))


asyncio.run(main())
