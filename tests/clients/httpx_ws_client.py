import httpx
from httpx_ws import WebSocketUpgradeError, aconnect_ws

from stdio import answer, resolve_to_this_machine


async def attempt(case):
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            async with aconnect_ws(case["url"], client, subprotocols=case.get("protocols")) as socket:
                await socket.send_text(case["text"])
                echo = await socket.receive_text()
                status = socket.response.status_code
                return {"status": status, "protocol": socket.subprotocol or "", "echo": echo}
        except WebSocketUpgradeError as rejected:
            return {"status": rejected.response.status_code}


resolve_to_this_machine()
answer(attempt)
