import os

from sanic import Sanic

app = Sanic("echo")


# `subprotocols` would reject clients that offer none.
@app.websocket("/ws")
async def ws(request, socket):
    async for message in socket:
        await socket.send(message)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), single_process=True, motd=False)
