import asyncio
import re

from ws4py.client import WebSocketBaseClient
from ws4py.exc import HandshakeError

from stdio import answer, resolve_to_this_machine


class Client(WebSocketBaseClient):
    def received_message(self, message):
        self.echo = str(message)
        self.close(1000)


def connect(case):
    client = Client(case["url"], protocols=case.get("protocols"))
    try:
        client.connect()
    except HandshakeError as rejected:
        return {"status": int(re.search(r"\d{3}", str(rejected))[0])}
    protocol = b",".join(client.protocols).decode()
    client.send(case["text"])
    client.run()
    return {"protocol": protocol, "echo": client.echo}


async def attempt(case):
    return await asyncio.to_thread(connect, case)


resolve_to_this_machine()
answer(attempt)
