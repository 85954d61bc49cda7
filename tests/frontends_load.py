# A load on a server while a command restarts it, and what its clients saw. Part of tests/frontends.
#
#   python3 frontends_load.py HOST:PORT RATE TEXT EXIT -- COMMAND…
#
# RATE new connections a second with one request each, whatever the answers take; each answer must be 200 and hold TEXT.
# COMMAND is `gatewayctl restart --json`, and must end with EXIT. Its verdict must name as many failures as were seen.
import asyncio
import json
import sys
import time

PATIENCE = 60
# Before the command, and after it.
QUIET = 3

host, port = sys.argv[1].rsplit(":", 1)
rate, text = int(sys.argv[2]), sys.argv[3].encode()
wanted, command = int(sys.argv[4]), sys.argv[6:]
answered, failed, gap, last = 0, {}, 0.0, None


async def one():
    global answered, gap, last
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/html\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
        status = answer.split(b" ", 2)[1].decode() if answer else "nothing"
        if status != "200" or text not in answer:
            failed[status] = failed.get(status, 0) + 1
            return
        now = time.monotonic()
        gap = max(gap, now - (last or now))
        answered, last = answered + 1, now
    except Exception as error:
        name = type(error).__name__
        failed[name] = failed.get(name, 0) + 1


async def main():
    tasks, ends = set(), asyncio.Event()

    async def load():
        due = time.monotonic()
        while not ends.is_set():
            tasks.add(asyncio.create_task(one()))
            due += 1 / rate
            await asyncio.sleep(max(0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    loading = asyncio.create_task(load())
    await asyncio.sleep(QUIET)
    begun = time.monotonic()
    restart = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await restart.communicate()
    took = time.monotonic() - begun
    await asyncio.sleep(QUIET)
    ends.set()
    await loading
    verdict = json.loads(out)
    print(
        f"  exit {restart.returncode} after {took:.1f} s; {answered} answered, failed: {failed or 'none'}, longest gap {gap:.1f} s"
    )
    print("  verdict:", verdict.get("error") or verdict.get("clients"))
    counted = sum((verdict.get("clients") or {}).get("failed", {}).values())
    if restart.returncode != wanted or counted != sum(failed.values()):
        sys.exit(f"exit {wanted} was expected, and {sum(failed.values())} failures, not {counted}")


asyncio.run(main())
