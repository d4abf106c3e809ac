// Bun's server is uWebSockets.
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch(request, server) {
    if (server.upgrade(request)) return undefined;
    return new Response("Upgrade failed", { status: 400 });
  },
  websocket: {
    perMessageDeflate: true,
    message: (socket, message) => socket.send(message),
  },
});
