// Vite's development server: `vite.mjs PORT DIRECTORY`.
import { createServer as createHttpServer } from "node:http";
import { createServer } from "vite";

// Vite's own server probes the port before it listens, which looks as if it were ready.
const http = createHttpServer();
const vite = await createServer({
  appType: "custom",
  cacheDir: `${process.argv[3]}/vite`,
  configFile: false,
  logLevel: "silent",
  root: process.argv[3],
  server: { hmr: { server: http }, middlewareMode: true },
});
http.on("request", vite.middlewares);
http.listen(Number(process.argv[2]), "127.0.0.1");
