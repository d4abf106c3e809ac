from tornado.httpclient import HTTPClientError
from tornado.websocket import websocket_connect

from stdio import answer, resolve_to_this_machine


async def attempt(case):
    try:
        socket = await websocket_connect(case["url"], subprotocols=case.get("protocols"))
    except HTTPClientError as rejected:
        return {"status": rejected.code}
    # Gone after the close.
    protocol = socket.selected_subprotocol or ""
    await socket.write_message(case["text"])
    echo = await socket.read_message()
    socket.close(1000)
    await socket.read_message()
    return {"protocol": protocol, "echo": echo, "close": socket.close_code}


resolve_to_this_machine()
answer(attempt)
