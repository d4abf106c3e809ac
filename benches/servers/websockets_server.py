import asyncio
import logging

from websockets.asyncio.server import serve

logging.disable()


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, origins=["https://app.example.com"]) as server:
        print("listening on http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
