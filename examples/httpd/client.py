"""Starting the server, and talking to it: what test.py and load.py have in common. Standard library only."""

import os
import re
import signal
import socket
import subprocess
import time

# How long anything may take before it counts as hung. Nothing that is checked depends on it.
HUNG = 120


class Failed(Exception):
    pass


def check(condition, *words):
    if not condition:
        raise Failed(" ".join(str(word)[:1000] for word in words))


def eventually(condition, *words):
    """Waits until the condition holds."""
    end = time.monotonic() + HUNG
    while not condition():
        check(time.monotonic() < end, "never:", *words)
        time.sleep(0.01)


class Server:
    def __init__(self, program, *options):
        self.process = subprocess.Popen([program, "--port", "0", *map(str, options)], stdout=subprocess.PIPE,
                                        text=True)
        line = self.process.stdout.readline()
        found = re.match(r"httpd: http://127\.0\.0\.1:(\d+), (\d+) workers", line)
        if not found:
            self.process.kill()
            raise Failed(f"the server did not start: {line!r}")
        self.port, self.workers = map(int, found.groups())

    def __enter__(self):
        return self

    def __exit__(self, *what):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def connect(self):
        return Connection(self.port)

    def tell(self, which):
        self.process.send_signal(which)

    def end(self, which=signal.SIGTERM):
        """Ends it, and returns what it has counted."""
        if which is not None:
            self.tell(which)
        output, _ = self.process.communicate(timeout=HUNG)
        check(self.process.returncode == 0, "the server's status is", self.process.returncode)
        counts = {name: int(count) for count, name in re.findall(r"(\d+) (\w+(?: \w+)*)", output)}
        check(counts.get("fibers left") == 0, "fibers are left:", output)
        return counts

    def _list(self, name):
        return os.listdir(f"/proc/{self.process.pid}/{name}")

    def descriptors(self):
        return len(self._list("fd"))

    def connections(self):
        """Its sockets, but for the one that listens."""
        count = 0
        for number in self._list("fd"):
            try:
                count += os.readlink(f"/proc/{self.process.pid}/fd/{number}").startswith("socket:")
            except FileNotFoundError:  # closed just now
                pass
        return count - 1

    def threads(self):
        return len(self._list("task"))

    def ticks(self):
        """The processor time of each worker, in the kernel's ticks."""
        times = {}
        for task in self._list("task"):
            with open(f"/proc/{self.process.pid}/task/{task}/stat", encoding="ascii") as file:
                name, rest = file.read().rsplit(")", 1)
            if "(bop-worker" in name:
                times[task] = int(rest.split()[11])
        return times


class Connection:
    """One connection, as raw as a check needs it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=HUNG)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, path, method="GET", body=b"", fields=""):
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}{length}\r\n".encode() + body)

    def _more(self):
        got = self.socket.recv(65536)
        if not got:
            raise EOFError
        self.unread += got

    def reply(self, method="GET"):
        """Status, header fields (names in lower case), content."""
        while b"\r\n\r\n" not in self.unread:
            self._more()
        head, self.unread = self.unread.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Z].*", first)
        check(found, "not a reply:", first)
        status, fields = int(found[1]), dict(re.split(r":\s*", line.lower(), maxsplit=1) for line in lines)
        size = 0 if method == "HEAD" or status == 100 else int(fields["content-length"])
        while len(self.unread) < size:
            self._more()
        content, self.unread = self.unread[:size], self.unread[size:]
        return status, fields, content.decode(errors="replace")

    def get(self, path, method="GET", body=b"", fields=""):
        self.ask(path, method, body, fields)
        status, _, content = self.reply(method)
        return status, content

    def is_answered(self, seconds=0):
        """Is there anything to be read by then, if only the end?"""
        if self.unread:
            return True
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            return True
        except (BlockingIOError, TimeoutError):
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(HUNG)

    def is_ended(self):
        """Waits for the end of what the server sends: True if nothing comes before it."""
        try:
            return self.unread == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True


def keep_busy(server, spinners):
    """Waits until all workers have used processor time for guests that spin."""
    before = server.ticks()
    busy = lambda: sum(ticks >= before.get(task, 0) + 5 for task, ticks in server.ticks().items())
    eventually(lambda: busy() >= server.workers or any(s.is_answered() for s in spinners), "spinners spin")
