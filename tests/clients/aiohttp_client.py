import aiohttp

from stdio import answer, insecure


async def attempt(case):
    # The cookie is one of the headers: no jar.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        connection = session.ws_connect(
            case["url"],
            headers=case["headers"],
            protocols=case.get("protocols", ()),
            ssl=insecure(),
        )
        try:
            async with connection as socket:
                await socket.send_str(case["text"])
                echo = await socket.receive_str()
                await socket.close(code=1000)
                return {"protocol": socket.protocol or "", "echo": echo, "close": socket.close_code}
        except aiohttp.WSServerHandshakeError as refused:
            return {"status": refused.status}


answer(attempt)
