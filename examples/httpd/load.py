#!/usr/bin/env python3
"""What fast requests feel of others that spin: a table, measured with wrk (Debian's package of that name).

    load.py HTTPD [--seconds N] [--rounds N] [--connections N] [--workers N] [--quantum-us N] [--pause-ms N...]

Each line is a server of its own, with 0, 2 or 8 clients that ask for /spin again and again, each time until the budget
is used up, while wrk asks for /hello/wrk on 256 connections: each of them again when it has its reply and has then
paused, for up to so long (by chance). Without a pause the processors are busy anyhow, and latency is mostly the queue of
256. Of several rounds the medians are printed."""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from client import Connection, Failed, Server, check

SCRIPT = """
if PAUSE > 0 then
  delay = function() return math.random(0, PAUSE) end
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("REPORT %d %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Spinner(threading.Thread):
    """A client that keeps one guest spinning."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.replies, self.stopped = port, 0, False

    def run(self):
        with Connection(self.port) as client:
            while not self.stopped:
                status, content = client.get("/spin")
                check(status == 503, "/spin gave", status, content)
                self.replies += 1


def wrk(options, pause, address):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.replace("PAUSE", str(pause)))
        script.flush()
        command = ["wrk", "--threads", "2", "--connections", str(options.connections), "--duration",
                   f"{options.seconds}s", "--timeout", "60s", "--script", script.name, address]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def measure(options, pause, count, arguments):
    """Requests in a second, median, 99th percentile and maximum in ms, spins in a second, errors."""
    with Server(options.program, "--quickjs", "", "--deadline-ms", 600000, "--workers", options.workers,
                "--quantum-us", options.quantum_us, *arguments) as server:
        spinners = [Spinner(server.port) for _ in range(count)]
        for spinner in spinners:
            spinner.start()
        time.sleep(1)
        before, began = sum(s.replies for s in spinners), time.monotonic()
        output = wrk(options, pause, f"http://127.0.0.1:{server.port}/hello/wrk")
        spins = (sum(s.replies for s in spinners) - before) / (time.monotonic() - began)
        for spinner in spinners:
            spinner.stopped = True
        for spinner in spinners:
            spinner.join()
        server.end()
    found = re.search(r"REPORT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    check(found, "wrk said", output)
    requests, duration, median, most, worst, errors = map(int, found.groups())
    return requests / (duration / 1e6), median / 1e3, most / 1e3, worst / 1e3, spins, errors


def main():
    parser = argparse.ArgumentParser(description="Fast requests while others spin.")
    parser.add_argument("program")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--quantum-us", type=int, default=1000)
    parser.add_argument("--pause-ms", type=int, nargs="*", default=[100, 0])
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("load.py: there is no wrk: apt-get install wrk")
    lines = [(pause, preempted, spinners) for pause in options.pause_ms for preempted in (True, False)
             for spinners in (0, 2, 8)]
    results = {line: [] for line in lines}
    for _ in range(options.rounds):
        for line in lines:
            pause, preempted, spinners = line
            results[line].append(measure(options, pause, spinners, () if preempted else ("--no-preemption",)))
    print(f"{options.connections} connections, {options.workers} workers, {os.cpu_count()} cores, turns of "
          f"{options.quantum_us} us; medians of {options.rounds} rounds of {options.seconds} s")
    print(f"{'pause':<10}{'preemption':<12}{'spinners':>8}{'requests/s':>12}{'p50':>11}{'p99':>11}{'max':>11}"
          f"{'spins/s':>9}{'errors':>8}")
    for line in lines:
        pause, preempted, spinners = line
        rate, median, most, worst, spins, errors = map(statistics.median, zip(*results[line]))
        print(f"{f'<= {pause} ms' if pause else 'none':<10}{'on' if preempted else 'off':<12}{spinners:>8}{rate:>12.0f}"
              f"{median:>8.1f} ms{most:>8.1f} ms{worst:>8.1f} ms{spins:>9.1f}{errors:>8.0f}")


if __name__ == "__main__":
    try:
        main()
    except (Failed, EOFError, OSError, subprocess.CalledProcessError) as problem:
        sys.exit(f"load.py: {problem}")
