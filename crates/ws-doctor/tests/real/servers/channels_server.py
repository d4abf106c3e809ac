"""An echo at /ws/, by Django Channels and Daphne, for pages of good.example only: `channels_server.py PORT`."""

import sys

import django
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["good.example"],
    INSTALLED_APPS=["channels"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for a test",
)
django.setup()
urlpatterns = []


class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data, bytes_data=bytes_data)


Server(
    application=ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": AllowedHostsOriginValidator(
                URLRouter([path("ws", Echo.as_asgi())])
            ),
        }
    ),
    endpoints=build_endpoint_description_strings(host="127.0.0.1", port=int(sys.argv[1])),
).run()
