"""The package websocket-client."""

import asyncio

import websocket

from stdio import answer, resolve_to_this_machine


def connect(case):
    try:
        socket = websocket.create_connection(
            case["url"], timeout=10, subprotocols=case.get("protocols"), http_no_proxy=["*"]
        )
    except websocket.WebSocketBadStatusException as rejected:
        return {"status": rejected.status_code}
    socket.send(case["text"])
    echo = socket.recv()
    socket.close()
    return {"status": socket.getstatus(), "protocol": socket.getsubprotocol() or "", "echo": echo}


async def attempt(case):
    return await asyncio.to_thread(connect, case)


resolve_to_this_machine()
answer(attempt)
