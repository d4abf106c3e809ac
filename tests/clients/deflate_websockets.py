from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from stdio import answer


async def attempt(case):
    lines = [f"grüezi {line} ☃\n" for line in range(case["lines"])]
    text = "".join(lines)
    binary = bytes(index % 200 for index in range(case["bytes"]))
    # Without parameters, as the library offers it by default.
    offer = {}
    if case["parameters"] is not None:
        factory = ClientPerMessageDeflateFactory(**case["parameters"])
        offer = {"compression": None, "extensions": [factory]}
    async with connect(case["url"], origin=case["origin"], proxy=None, **offer) as socket:
        seen = {
            "header": socket.response.headers.get("Sec-WebSocket-Extensions", ""),
            "extensions": [extension.name for extension in socket.protocol.extensions],
            "right": 0,
        }
        for message in (text, binary, "short", "", "", b"", text):
            await socket.send(message)
            seen["right"] += await socket.recv() == message
        # In fragments.
        await socket.send(lines)
        seen["right"] += await socket.recv() == text
        await socket.close(1000)
        return {**seen, "close": socket.close_code}


answer(attempt)
