// webpack's development server: `webpack.mjs PORT DIRECTORY`.
import webpack from "webpack";
import WebpackDevServer from "webpack-dev-server";

const compiler = webpack({
  context: process.argv[3],
  entry: {},
  infrastructureLogging: { level: "none" },
  mode: "development",
  stats: "none",
});
const server = new WebpackDevServer({ host: "127.0.0.1", port: Number(process.argv[2]) }, compiler);
await server.start();
