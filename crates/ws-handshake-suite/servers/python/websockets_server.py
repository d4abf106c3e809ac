import asyncio
import os

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


def select(_connection, offered):
    # `subprotocols=["chat"]` would reject clients that offer none.
    return "chat" if "chat" in offered else None


async def main():
    async with serve(echo, "127.0.0.1", int(os.environ["PORT"]), select_subprotocol=select) as server:
        await server.serve_forever()


asyncio.run(main())
