// Vite's development server: `vite.mjs PORT DIRECTORY`.
import { createServer } from "vite";

const port = Number(process.argv[2]);
const server = await createServer({
  cacheDir: `${process.argv[3]}/vite`,
  configFile: false,
  logLevel: "silent",
  root: process.argv[3],
  server: { host: "127.0.0.1", port, strictPort: true },
});
await server.listen();
