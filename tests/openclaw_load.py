# A load on OpenClaw while it is restarted, and what its clients saw. Part of tests/openclaw.
#
#   python3 openclaw_load.py HOST:PORT TOKEN RESTARTS -- COMMAND…
#
# COMMAND restarts it, and is run RESTARTS times; it ends when the restart is done. The load: 100 new connections a
# second with one request each, whatever the answers take; 20 kept connections, each with 4 requests a second; 5
# WebSockets that stay open, opened again whenever they end; and one short WebSocket a second. A request has 20 s.
import asyncio
import base64
import collections
import json
import os
import sys
import time

NEW_PER_SECOND = 100
KEPT = 20
KEPT_PAUSE = 0.25
LASTING = 5
SHORT_PAUSE = 1
PATIENCE = 20
# Before the first restart, between two of them and after the last one: OpenClaw restarts once in 30 s at most.
QUIET = 32

host, port = sys.argv[1].rsplit(":", 1)
token, restarts, command = sys.argv[2], int(sys.argv[3]), sys.argv[5:]
good = collections.Counter()
failed = collections.Counter()
ended = 0
answers = []
stopping = False


class Bad(Exception):
    pass


def kind(error):
    if isinstance(error, Bad):
        return str(error)
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, asyncio.IncompleteReadError):
        return "cut"
    return type(error).__name__


async def head(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.split(":", 1) for line in lines[1:] if ":" in line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in fields}


async def body(reader, fields):
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    else:
        await reader.read()


async def request(reader, writer, keep):
    connection = "keep-alive" if keep else "close"
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: {connection}\r\n\r\n".encode())
    status, fields = await head(reader)
    await body(reader, fields)
    if status != 200:
        raise Bad(f"status {status}")
    return fields.get("connection", "").lower() != "close"


async def one_new():
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port)
            await request(reader, writer, False)
        good["new"] += 1
        answers.append(time.monotonic())
        writer.close()
    except Exception as error:
        failed[f"new connection: {kind(error)}"] += 1


async def new():
    tasks, due = set(), time.monotonic()
    while not stopping:
        task = asyncio.create_task(one_new())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / NEW_PER_SECOND
        await asyncio.sleep(max(0, due - time.monotonic()))
    await asyncio.gather(*tasks)


async def kept(number):
    await asyncio.sleep(number * KEPT_PAUSE / KEPT)
    stream = None
    while not stopping:
        try:
            async with asyncio.timeout(PATIENCE):
                # A server may close a connection on which no request waits.
                if stream is None or stream[0].at_eof():
                    stream = await asyncio.open_connection(host, port)
                keeps = await request(*stream, True)
            good["kept"] += 1
            if not keeps:
                stream[1].close()
                stream = None
        except Exception as error:
            failed[f"kept connection: {kind(error)}"] += 1
            stream = None
        await asyncio.sleep(KEPT_PAUSE)


async def frame(reader):
    first, length = await reader.readexactly(2)
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2))
    elif length == 127:
        length = int.from_bytes(await reader.readexactly(8))
    return first & 0x0F, await reader.readexactly(length)


def send(writer, opcode, data):
    mask = os.urandom(4)
    length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + len(data).to_bytes(2)
    writer.write(bytes([0x80 | opcode]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))


async def websocket():
    """Opens one and logs in, as a client on this machine with the token does."""
    reader, writer = await asyncio.open_connection(host, port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    status, _ = await head(reader)
    if status != 101:
        raise Bad(f"status {status}")
    params = {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": ["operator.read"],
        "auth": {"token": token},
    }
    login = {"type": "req", "id": "1", "method": "connect", "params": params}
    send(writer, 1, json.dumps(login).encode())
    while True:
        opcode, data = await frame(reader)
        if opcode == 8:
            raise Bad(f"closed with {int.from_bytes(data[:2])}")
        if opcode == 1 and json.loads(data).get("id") == "1":
            answer = json.loads(data)
            if answer.get("ok"):
                return reader, writer
            raise Bad(f"login: {answer.get('error', {}).get('code')}")


async def lasting():
    global ended
    while not stopping:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await websocket()
            good["lasting WebSocket"] += 1
        except Exception as error:
            failed[f"lasting WebSocket: {kind(error)}"] += 1
            await asyncio.sleep(0.1)
            continue
        try:
            while True:
                opcode, data = await frame(reader)
                if opcode == 9:
                    send(writer, 10, data)
                if opcode == 8:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        ended += 1


async def short():
    while not stopping:
        try:
            async with asyncio.timeout(PATIENCE):
                _, writer = await websocket()
                send(writer, 8, (1000).to_bytes(2))
                await writer.drain()
            good["short WebSocket"] += 1
        except Exception as error:
            failed[f"short WebSocket: {kind(error)}"] += 1
        await asyncio.sleep(SHORT_PAUSE)


async def restart():
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait() != 0:
        failed["restart"] += 1
    return time.monotonic() - begun


async def main():
    global stopping
    last = [asyncio.create_task(lasting()) for _ in range(LASTING)]
    others = [asyncio.create_task(task) for task in (new(), short(), *(kept(number) for number in range(KEPT)))]
    await asyncio.sleep(QUIET)
    took = []
    for _ in range(restarts):
        took.append(await restart())
        await asyncio.sleep(QUIET)
    stopping = True
    await asyncio.gather(*others)
    for task in last:
        task.cancel()
    gap = max((later - one for one, later in zip(answers, answers[1:])), default=0)
    requests = good["new"] + good["kept"]
    lost = sum(count for what, count in failed.items() if "connection" in what)
    print(f"{restarts} restarts of {min(took):.1f} to {max(took):.1f} s")
    print(f"HTTP: {requests} of {requests + lost} requests answered, longest gap {gap:.2f} s")
    print(f"WebSockets: {good['lasting WebSocket']} lasting ones opened, {ended} ended; {good['short WebSocket']} short ones")
    for what, count in sorted(failed.items()):
        print(f"failed: {count} x {what}")


asyncio.run(main())
