import asyncio
import os

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", int(os.environ["PORT"]), subprotocols=["chat"]) as server:
        await server.serve_forever()


asyncio.run(main())
