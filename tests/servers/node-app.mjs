// A small server for the tests: node:http alone, no packages.
//
//   node node-app.mjs PORT
//
// KEEP_ALIVE_MS    how long an idle connection is kept (5000)
// START_DELAY_MS   how long it takes before it listens (0)
// STOP_DELAY_MS    how long it takes to end after SIGTERM, all else done (0)
// STOP_AT_ONCE     ends at SIGTERM, whatever it is doing
// NEVER_READY      it prints this and never listens
// EXTRA_LISTEN     it listens on this port instead of the one it was told
// SAY_OUT, SAY_ERR lines printed before anything else
// FAIL_WITH        it ends with this code after printing, without listening
import { createHash } from 'node:crypto';
import http from 'node:http';

const number = (name, fallback) => Number(process.env[name] ?? fallback);
const port = number('EXTRA_LISTEN', process.argv[2] ?? process.env.PORT);

if (process.env.SAY_OUT) console.log(process.env.SAY_OUT);
if (process.env.SAY_ERR) console.error(process.env.SAY_ERR);
if (process.env.FAIL_WITH) process.exit(Number(process.env.FAIL_WITH));

// The byte at place i of every download is PATTERN[i % 65536]; the tests compute the same.
const PATTERN = Buffer.alloc(65536);
for (let i = 0; i < PATTERN.length; i += 1) PATTERN[i] = (i * 31 + (i >> 8) * 17) & 0xff;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function send(response, bytes, ms) {
  for (const event of ['drain', 'close']) response.on(event, () => response.wake?.());
  const pieces = Math.max(1, Math.ceil(bytes / PATTERN.length));
  for (let sent = 0; sent < bytes; ) {
    const start = sent % PATTERN.length;
    const piece = PATTERN.subarray(start, start + Math.min(PATTERN.length - start, bytes - sent));
    sent += piece.length;
    if (!response.write(piece)) {
      await new Promise((resolve) => {
        response.wake = resolve;
      });
    }
    if (response.destroyed) return;
    if (ms > 0) await wait(ms / pieces);
  }
  response.end();
}

let open = 0;
let idle = () => {};

const server = http.createServer(async (request, response) => {
  open += 1;
  response.on('close', () => {
    open -= 1;
    if (open === 0) idle();
  });
  const url = new URL(request.url, 'http://x');
  const query = (name, fallback) => Number(url.searchParams.get(name) ?? fallback);
  switch (url.pathname) {
    case '/':
    case '/pid':
      response.end(`${process.pid}\n`);
      break;
    case '/slow':
      await wait(query('ms', 1000));
      response.end(`${process.pid}\n`);
      break;
    case '/stream': {
      const chunks = query('chunks', 10);
      response.setHeader('content-type', 'text/plain');
      response.flushHeaders();
      for (let i = 0; i < chunks; i += 1) {
        response.write(`chunk ${i} of ${chunks} from ${process.pid}\n`);
        await wait(query('ms', 1000) / chunks);
      }
      response.end('end\n');
      break;
    }
    case '/events': {
      // Each event comes in two parts.
      response.setHeader('content-type', 'text/event-stream');
      response.flushHeaders();
      for (let i = 0; !response.destroyed; i += 1) {
        response.write(`id: ${i}\n`);
        await wait(query('ms', 20));
        response.write(`data: event ${i} from ${process.pid}\n\n`);
        await wait(query('ms', 20));
      }
      break;
    }
    case '/download': {
      const bytes = query('bytes', 65536);
      response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes });
      await send(response, bytes, query('ms', 0));
      break;
    }
    case '/echo':
      response.writeHead(200, { 'content-type': request.headers['content-type'] ?? 'application/octet-stream' });
      request.pipe(response);
      break;
    case '/headers':
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(request.rawHeaders));
      break;
    case '/exit':
      response.end('bye\n', () => process.exit(query('code', 1)));
      break;
    default:
      response.writeHead(404).end('no such page\n');
  }
});

// A WebSocket echo, by hand: short and 16-bit text frames, ping, close.
function frame(opcode, payload) {
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, payload.length]) : Buffer.from([0x80 | opcode, 126, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([head, payload]);
}

server.on('upgrade', (request, socket, head) => {
  if (new URL(request.url, 'http://x').pathname !== '/ws') {
    socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\nconnection: close\r\n\r\nno entry\n');
    return;
  }
  const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let rest = head;
  const read = (data) => {
    rest = Buffer.concat([rest, data]);
    for (;;) {
      if (rest.length < 2) return;
      let length = rest[1] & 0x7f;
      let at = 2;
      if (length === 126) {
        if (rest.length < 4) return;
        length = rest.readUInt16BE(2);
        at = 4;
      }
      if (rest.length < at + 4 + length) return;
      const mask = rest.subarray(at, at + 4);
      const payload = Buffer.from(rest.subarray(at + 4, at + 4 + length));
      for (let i = 0; i < payload.length; i += 1) payload[i] ^= mask[i % 4];
      const opcode = rest[0] & 0x0f;
      rest = rest.subarray(at + 4 + length);
      if (opcode === 8) {
        socket.end(frame(8, payload));
        return;
      }
      socket.write(frame(opcode === 9 ? 10 : opcode, payload));
    }
  };
  socket.on('data', read);
  socket.on('error', () => socket.destroy());
  read(Buffer.alloc(0));
});

server.keepAliveTimeout = number('KEEP_ALIVE_MS', 5000);
process.on('SIGTERM', async () => {
  if (process.env.STOP_AT_ONCE) process.exit(0);
  server.close();
  server.closeIdleConnections();
  // Requests are finished; sockets that were upgraded are no longer the server's, and nothing waits for them.
  if (open > 0) await new Promise((resolve) => (idle = resolve));
  await wait(number('STOP_DELAY_MS', 0));
  process.exit(0);
});

if (process.env.NEVER_READY) {
  console.error(process.env.NEVER_READY);
  setInterval(() => {}, 1000);
} else {
  await wait(number('START_DELAY_MS', 0));
  server.listen(port, '127.0.0.1', 511);
}
