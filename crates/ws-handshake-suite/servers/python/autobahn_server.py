import os

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor


class Echo(WebSocketServerProtocol):
    def onConnect(self, request):
        return "chat" if "chat" in request.protocols else None

    def onMessage(self, payload, binary):
        self.sendMessage(payload, binary)


factory = WebSocketServerFactory()
factory.protocol = Echo
reactor.listenTCP(int(os.environ["PORT"]), factory, interface="127.0.0.1")
reactor.run()
