// The server and the clients of tests/socketio; socket.io and its client come from NODE_PATH.
//
//   node socketio.mjs server PORT                     answers each message with its own process id
//   node socketio.mjs clients URL COUNT RESTARTS COMMAND...
//       so many clients by polling alone, each with a message every 200 ms. COMMAND is a restart, run so often; prints
//       how many sessions were lost within 5 s of each, how many later, and what became of the messages.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import http from "node:http";
import path from "node:path";

const require = createRequire(path.join(process.env.NODE_PATH, "/"));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// A session that is lost so soon after a restart was lost by it.
const SOON = 5_000;
const MESSAGE = 200;
// A message that is not acknowledged by then is lost.
const PATIENCE = 10_000;

function server(port) {
  const { Server } = require("socket.io");
  const listener = http.createServer((_, answer) => answer.end("ok\n"));
  const io = new Server(listener, { transports: ["polling"], pingInterval: 5_000 });
  io.on("connection", (socket) => socket.on("ask", (reply) => reply(process.pid)));
  listener.listen(port, "127.0.0.1");
}

async function clients(url, count, restarts, command) {
  const { io } = require("socket.io-client");
  const seen = { acknowledged: 0, unacknowledged: 0, soon: 0, later: 0 };
  let restarted = -Infinity;
  let ends = false;
  const client = async () => {
    const socket = io(url, { transports: ["polling"], forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 100 });
    socket.on("disconnect", () => {
      if (!ends) seen[Date.now() - restarted < SOON ? "soon" : "later"] += 1;
    });
    await new Promise((resolve) => socket.once("connect", resolve));
    return socket;
  };
  const talk = async (socket) => {
    while (!ends) {
      try {
        await socket.timeout(PATIENCE).emitWithAck("ask");
        seen.acknowledged += 1;
      } catch {
        seen.unacknowledged += 1;
      }
      await pause(MESSAGE);
    }
  };
  const sockets = await Promise.all(Array.from({ length: count }, client));
  const talks = sockets.map(talk);
  await pause(1_000);
  for (let number = 0; number < restarts; number += 1) {
    restarted = Date.now();
    const child = spawn(command[0], command.slice(1), { stdio: ["ignore", "ignore", "inherit"] });
    const code = await new Promise((resolve) => child.once("exit", resolve));
    if (code !== 0) throw new Error(`the restart ended with ${code}`);
    await pause(SOON + 3_000);
  }
  ends = true;
  await Promise.all(talks);
  sockets.forEach((socket) => socket.close());
  console.log(
    `${count} clients, ${restarts} restarts: ${seen.acknowledged} messages acknowledged, ${seen.unacknowledged} not; ` +
      `sessions lost: ${seen.soon} within ${SOON / 1000} s of a restart, ${seen.later} later`,
  );
}

const [mode, ...words] = process.argv.slice(2);
if (mode === "server") server(Number(words[0]));
else await clients(words[0], Number(words[1]), Number(words[2]), words.slice(3));
