import os

from aiohttp import WSMsgType, web


async def ws(request):
    socket = web.WebSocketResponse(protocols=["chat"])
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


app = web.Application()
app.add_routes([web.get("/ws", ws)])
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)
