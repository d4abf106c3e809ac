from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from stdio import answer, insecure, resolve_to_this_machine


async def attempt(case):
    context = insecure() if case["url"].startswith("wss:") else None
    connection = connect(
        case["url"],
        additional_headers=case.get("headers"),
        subprotocols=case.get("protocols"),
        ssl=context,
        proxy=None,
    )
    try:
        async with connection as socket:
            await socket.send(case["text"])
            echo = await socket.recv()
            await socket.close(1000)
            return {
                "status": socket.response.status_code,
                "protocol": socket.subprotocol or "",
                "echo": echo,
                "close": socket.close_code,
            }
    except InvalidStatus as refused:
        return {"status": refused.response.status_code}


resolve_to_this_machine()
answer(attempt)
