#!/usr/bin/env python3
"""The test of the server: each endpoint, HTTP as it is and as it should not be, clients that are slow or vanish, a crowd
of 256 connections, limits, and the end. And a control: without preemption, spinners keep a fast request from its reply,
and the check must notice.

    test.py HTTPD

Nothing here depends on how fast the machine is: what is checked is what comes, and in which order."""

import asyncio
import random
import signal
import socket
import struct
import sys

from client import HUNG, Failed, Server, check, eventually, keep_busy

HOUR = 3600 * 1000


def hello(name):
    return f"<!doctype html>\n<title>Hello</title>\n<p>Hello, {name}!\n"


# ---- endpoints ----

def answers(server, expected):
    with server.connect() as client:
        for path, status, content in expected:
            got = client.get(path)
            check(got[0] == status and content in got[1], path[:40], "gave", got, "and not", status, repr(content))


def endpoints(server):
    answers(server, [
        ("/", 200, "/hello/NAME"),
        ("/hello/", 200, hello("whoever you are")),
        ("/hello/you", 200, hello("you")),
        ("/hello/a%20%3Cb%3E%20%26%20%22c%22", 200, hello("a &lt;b&gt; &amp; &quot;c&quot;")),
        ("/hello/%C3%BC", 200, hello("ü")),
        ("/hello/" + "n" * 1000, 200, "n" * 255 + "!"),
        ("/hello", 404, ""),
        ("/trap", 500, "wasm `unreachable` instruction executed"),
        ("/trap", 500, "!check"),  # the backtrace
        ("/recurse", 500, "out of bounds memory access"),
        ("/sleep/20", 200, "slept for 20 ms\n"),
        ("/memory", 200, "no more after"),
        ("/large", 507, "exceeds memory limits"),
        ("/large/", 404, ""),
        ("/nothing", 404, "/nothing"),
        ("/js?print(6*7)", 200, "42\n"),
        ("/js?print(%22%E2%82%AC%22)", 200, "€\n"),
        ("/js?throw%20new%20Error('so')", 500, "Error: so"),
        ("/js?std.exit(7)", 500, "code 7"),
        ("/js?print('x'.repeat(2e6))", 500, "too long"),
        ("/js?let%20a=[];for(;;)a.push(new%20ArrayBuffer(1e6))", 500, ""),
        ("/js?%FF", 400, "UTF-8"),
        ("/js", 200, ""),
    ])
    with server.connect() as client:
        script = b"let s = 0; for (let i = 0; i < 1000; i++) s += i;\nprint(s, '%41')"
        got = client.get("/js", "POST", script)
        check(got == (200, "499500 %41\n"), "a POST gave", got)
        got = client.get("/js", "POST", b"print('" + b"y" * 60000 + b"'.length)")
        check(got == (200, "60000\n"), "a long POST gave", got)


def spinners(server):
    answers(server, [("/spin", 503, "processor time"), ("/js?print(1);for(;;){}", 503, "processor time")])


# ---- HTTP ----

def keep_alive(server):
    with server.connect() as client:
        for i in range(50):
            check(client.get(f"/hello/{i}") == (200, hello(i)), "reply", i)
        client.ask("/hello/x", fields="Connection: Close\r\n")
        status, fields, _ = client.reply()
        check(status == 200 and fields["connection"] == "close" and client.is_ended(), "close, when asked for")
    with server.connect() as client:
        client.send(b"GET /hello/x HTTP/1.0\r\n\r\n")
        check(client.reply()[2] == hello("x") and client.is_ended(), "HTTP/1.0")
    with server.connect() as client:
        for _ in range(2):
            client.send(b"GET /hello/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, fields, _ = client.reply()
            check(status == 200 and fields["connection"] == "keep-alive", "HTTP/1.0 with keep-alive")


def methods(server):
    with server.connect() as client:
        client.ask("/hello/x", "HEAD")
        status, fields, content = client.reply("HEAD")
        check((status, fields["content-length"], content) == (200, str(len(hello("x"))), ""), "HEAD")
        client.ask("/hello/x", "POST", b"body")
        status, fields, _ = client.reply()
        check(status == 405 and fields["allow"] == "get, head", "POST where there is none:", status, fields)
        check(client.get("/hello/y") == (200, hello("y")), "after that")
        client.send(b"POST /js HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        check(client.reply()[0] == 100, "100 Continue")
        client.send(b"print(1)")
        check(client.reply()[2] == "1\n", "what was continued")
        client.send(b"\r\n\r\nGET http://host/hello/z HTTP/1.1\r\nHost: host\r\n\r\n")
        check(client.reply()[2] == hello("z"), "a target with its host, after empty lines")


def pipelining(server):
    with server.connect() as client:
        for path in ("/sleep/50", "/hello/a", "/trap", "/js?print(1)", "/hello/b"):
            client.ask(path)
        statuses, _, contents = zip(*(client.reply() for _ in range(5)))
        check(statuses == (200, 200, 500, 200, 200), "in order:", statuses)
        check(contents[1] == hello("a") and contents[3] == "1\n" and contents[4] == hello("b"), "in order:", contents)
        client.send(b"".join(b"GET /hello/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(500)))
        for i in range(500):
            check(client.reply()[2] == hello(i), "of many, reply", i)


MALFORMED = [
    (b"\0\r\n\r\n", 400),
    (b"nonsense\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/11\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /% HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /%0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nName : value\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nName: a\r\n b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nName: a\nOther: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nName: a\0b\r\n\r\n", 400),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n", 400),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", 413),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\n", 413),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /js HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417),
    (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    (b"GET /" + b"a" * 9000, 414),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"N: v\r\n" * 2000, 431),
]


def malformed(server):
    for request, status in MALFORMED:
        with server.connect() as client:
            client.send(request)
            got, fields, _ = client.reply()
            check(got == status, request[:60], "gave", got, "and not", status)
            check(fields["connection"] == "close" and client.is_ended(), request[:60], "and went on")


def mutated(server):
    """Any bytes: a reply, or the end, or a wait for more; but the server lives."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    good = b"POST /js?x=%41 HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nConnection: keep-alive\r\n\r\nprint(1)"
    for _ in range(400):
        text = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(text) + 1)
            text[at:at + chance.randrange(4)] = chance.choice(
                [b"", b"\r", b"\n", b"\r\n", b" ", b"%", b":", b"\0", b"9", bytes([chance.randrange(256)])])
        with server.connect() as client:
            client.send(bytes(text))
            client.socket.shutdown(socket.SHUT_WR)
            try:
                while True:
                    client.reply()
            except (EOFError, ConnectionError):
                pass
    with server.connect() as client:
        check(client.get("/hello/x") == (200, hello("x")), "after the mutations of seed", seed)


# ---- clients ----

def slow_clients(server):
    """Requests that come byte by byte, many at once, while others are served between the bytes."""
    requests = [b"GET /hello/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (100 + i) for i in range(40)]
    clients = [server.connect() for _ in requests]
    with server.connect() as fast:
        for at in range(len(requests[0])):
            for client, request in zip(clients, requests):
                client.send(request[at:at + 1])
            if at % 8 == 0:
                check(fast.get(f"/hello/{at}") == (200, hello(at)), "a fast one")
    for i, client in enumerate(clients):
        check(client.reply()[2] == hello(100 + i), "slow client", i)
        client.close()


def vanishing_clients(server):
    """What they leave behind goes: also guests that would sleep for an hour."""
    beginnings = [
        b"", b"G", b"GET /hello/x HTTP/1.1\r\nHo", b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nprint(",
        b"GET /sleep/3600000 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
        b"GET /js?print('x'.repeat(1e6)) HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    ]
    for reset in (False, True):
        clients = [server.connect() for _ in range(5 * len(beginnings))]
        for i, client in enumerate(clients):
            client.send(beginnings[i % len(beginnings)])
        for client in clients:
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    eventually(lambda: server.connections() == 0, "their connections are closed")
    with server.connect() as client:
        check(client.get("/hello/x") == (200, hello("x")), "after that")


# ---- a crowd ----

class Crowd:
    """256 connections, some of which have guests that spin, trap, sleep or run scripts."""

    def __init__(self, port):
        self.port, self.spinning, self.replies = port, 4, 0

    async def ask(self, stream, path):
        reader, writer = stream
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = int(head.split("content-length: ")[1].split("\r\n")[0])
        self.replies += 1
        return int(head.split(" ")[1]), (await reader.readexactly(size)).decode()

    async def expect(self, stream, path, status, content):
        got = await self.ask(stream, path)
        check(got[0] == status and content in got[1], path, "gave", got)

    async def member(self, i, stream):
        if i < 4:
            await self.expect(stream, "/spin", 503, "processor time")
            self.spinning -= 1
        elif i < 36:
            for _ in range(5):
                await self.expect(stream, "/trap", 500, "unreachable")
        elif i < 66:
            for _ in range(3):
                await self.expect(stream, "/sleep/100", 200, "slept for 100 ms")
        elif i < 86:
            for n in range(3):
                await self.expect(stream, f"/js?print({i}*{n})", 200, f"{i * n}\n")
        else:
            n = 0
            while n < 10 or self.spinning > 0:
                await self.expect(stream, f"/hello/{i}-{n}", 200, hello(f"{i}-{n}"))
                n += 1

    async def run(self):
        streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", self.port) for _ in range(256)))
        await asyncio.wait_for(asyncio.gather(*(self.member(i, s) for i, s in enumerate(streams))), HUNG)
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


def crowd(server):
    """Each gets its answer; and what there was for them goes with them. What Wasmtime keeps for good, a descriptor for each
    module and threads for WASI's output, is there already."""
    eventually(lambda: server.connections() == 0, "earlier connections are closed")
    before = server.descriptors(), server.threads()
    members = Crowd(server.port)
    asyncio.run(members.run())
    eventually(lambda: server.descriptors() <= before[0], "descriptors are", before[0], "again")
    eventually(lambda: server.threads() <= before[1], "threads are", before[1], "again")
    print(f"    {members.replies} replies; {before[0]} descriptors, {before[1]} threads before and after")


# ---- preemption, and the control ----

def is_served(server):
    """With as many spinners as workers: do twenty fast requests come through before any spinner has ended?"""
    spinners = [server.connect() for _ in range(server.workers)]
    with server.connect() as fast:
        for spinner in spinners:  # they are accepted
            spinner.get("/hello/x")
        for spinner in spinners:
            spinner.ask("/spin")
        keep_busy(server, spinners)
        for i in range(20):
            check(fast.get(f"/hello/{i}") == (200, hello(i)), "a fast one")
    served = not any(spinner.is_answered() for spinner in spinners)
    for spinner in spinners:
        spinner.close()
    return served


def preemption(program):
    with Server(program, "--workers", 2, "--budget-ms", HOUR, "--deadline-ms", HOUR, "--quickjs", "") as server:
        check(is_served(server), "spinners keep fast requests from their replies")
        eventually(lambda: server.connections() == 0, "spinners that nobody waits for end")
        check(server.end().get("cancelled") == 2, "the spinners were cancelled")
    with Server(program, "--workers", 2, "--budget-ms", 3000, "--deadline-ms", HOUR, "--quickjs", "",
                "--no-preemption") as server:
        check(not is_served(server), "CONTROL: without preemption, the check notices nothing")
        server.end()


# ---- limits ----

def timeouts(program):
    with Server(program, "--request-ms", 300, "--idle-ms", 300, "--deadline-ms", 300) as server:
        for beginning in (b"GET /hel", b"POST /js HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nprint"):
            with server.connect() as client:
                client.send(beginning)
                check(client.reply()[0] == 408 and client.is_ended(), "408")
        with server.connect() as client:
            check(client.is_ended(), "an idle connection is closed")
        with server.connect() as client:
            got = client.get("/sleep/3600000")
            check(got[0] == 504 and "300 ms" in got[1], "504:", got)
        with socket.socket() as deaf:  # asks for much, and reads nothing
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", server.port))
            deaf.sendall(b"GET /js?print('x'.repeat(1e6)) HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            eventually(lambda: server.connections() == 0, "who does not read is let go")
        check(server.end()["timed out"] == 1, "one guest has timed out")


def room(program):
    with Server(program, "--connections", 8, "--guests", 1, "--deadline-ms", HOUR, "--quickjs", "") as server:
        clients = [server.connect() for _ in range(8)]
        for client in clients:
            check(client.get("/hello/x")[0] == 200, "one of eight")
        with server.connect() as ninth:
            ninth.ask("/hello/x")
            check(not ninth.is_answered(0.3), "a ninth of eight connections is served")
            clients.pop().close()
            check(ninth.reply()[0] == 200, "the ninth when another one is gone")
        sleeper, waiter = clients[:2]
        sleeper.ask("/sleep/3600000")
        while True:  # until the sleeper has the one place for guests
            waiter.ask("/hello/x")
            if not waiter.is_answered(0.3):
                break
            waiter.reply()
        sleeper.close()
        check(waiter.reply()[0] == 200, "the second guest when the first is gone")
        for client in clients[1:]:
            client.close()
        server.end()


# ---- the end ----

def is_refused(server):
    try:
        with server.connect() as late:
            late.ask("/hello/x")
            return late.is_ended()
    except ConnectionError:
        return True


def graceful_end(program):
    for which in (signal.SIGTERM, signal.SIGINT):
        with Server(program, "--grace-ms", HOUR, "--quickjs", "") as server:
            idle, partial, busy = (server.connect() for _ in range(3))
            for client in (idle, partial, busy):
                client.get("/hello/x")
            partial.send(b"GET /hel")
            busy.ask("/sleep/500")
            busy.ask("/hello/late")
            server.tell(which)
            status, fields, content = busy.reply()
            check(status == 200 and "slept" in content and fields["connection"] == "close" and busy.is_ended(),
                  "a request under way is answered, and no further one")
            check(idle.is_ended() and partial.is_ended(), "the others are closed")
            check(is_refused(server), "nobody listens")
            server.end(None)


def hasty_end(program):
    options = ("--budget-ms", HOUR, "--deadline-ms", HOUR, "--quickjs", "", "--workers", 2)
    for grace, hurry in ((200, False), (HOUR, True)):
        with Server(program, *options, "--grace-ms", grace) as server:
            clients = [server.connect() for _ in range(6)]
            for client in clients:
                client.get("/hello/x")
            for i, client in enumerate(clients):
                client.ask(("/spin", "/sleep/3600000")[i % 2])
            keep_busy(server, clients)
            server.tell(signal.SIGTERM)
            if hurry:
                eventually(lambda: is_refused(server), "nobody listens")
                server.tell(signal.SIGINT)
            check(all(client.is_ended() for client in clients), "guests that never end are cancelled")
            server.end(None)


def steps(subject, *functions):
    for function in functions:
        print(function.__name__, flush=True)
        function(subject)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = sys.argv[1]
    try:
        # A budget is used up faster where others use the processors, too: only who spins has one that is short.
        with Server(program, "--budget-ms", HOUR, "--deadline-ms", HOUR, "--request-ms", HOUR) as server:
            steps(server, endpoints, keep_alive, methods, pipelining, malformed, mutated, slow_clients)
            server.end()
        with Server(program, "--budget-ms", 1500, "--deadline-ms", HOUR, "--request-ms", HOUR) as server:
            steps(server, spinners, crowd, vanishing_clients, crowd)
            counts = server.end()
            check(counts["trapped"] == 320 and counts["out of budget"] == 10, "the counts:", counts)
        steps(program, preemption, timeouts, room, graceful_end, hasty_end)
    except (Failed, EOFError, OSError) as problem:
        sys.exit(f"test.py: {type(problem).__name__}: {problem}")
    print("all is right")


if __name__ == "__main__":
    main()
