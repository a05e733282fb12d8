"""Sends requests at a steady rate, each on a new connection, and counts what fails. Needs nothing but Python.

Prints the first failures as they happen, a line of totals every second, and a summary when it is told to stop (SIGTERM)
or after --seconds. Lines are JSON, one object each.
"""

import argparse
import http.client
import json
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, default=80)
parser.add_argument("--path", default="/")
parser.add_argument("--rate", type=float, default=20.0, help="requests per second, at most 100")
parser.add_argument("--seconds", type=float, default=3600.0)
parser.add_argument("--timeout", type=float, default=5.0, help="seconds until a request counts as failed")

stop = threading.Event()
lock = threading.Lock()
counts = Counter()
versions = Counter()


def request(options, number):
    started = time.monotonic()
    # Every tenth request writes, so that a schema which only reads survive would be noticed.
    method, path = ("POST", "/orders") if number % 10 == 9 else ("GET", options.path)
    connection = http.client.HTTPConnection(options.host, options.port, timeout=options.timeout)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
        failure = None if answer.status < 400 else f"{method} {path}: HTTP {answer.status}"
        version = json.loads(body).get("version") if failure is None else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        failure, version = f"{method} {path}: {type(error).__name__}: {error}", None
    finally:
        connection.close()
    taken = time.monotonic() - started
    with lock:
        counts["requests"] += 1
        counts["slowest_ms"] = max(counts["slowest_ms"], round(taken * 1000))
        if failure is None:
            versions[version] += 1
        else:
            counts["failed"] += 1
    if failure is not None and counts["failed"] <= 20:
        say({"failure": failure, "at": round(time.time(), 3)})


def totals(kind):
    with lock:
        return {kind: True, "requests": counts["requests"], "failed": counts["failed"],
                "slowest_ms": counts["slowest_ms"], "by_version": dict(versions)}


def say(value):
    print(json.dumps(value), flush=True)


def main():
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pause = 1 / min(options.rate, 100.0)
    begin = time.monotonic()
    sent, told = 0, 0
    with ThreadPoolExecutor(max_workers=32) as pool:
        while not stop.is_set() and time.monotonic() - begin < options.seconds:
            pool.submit(request, options, sent)
            sent += 1
            if time.monotonic() - begin - told > 1:
                told = time.monotonic() - begin
                say(totals("running"))
            stop.wait(max(0.0, begin + sent * pause - time.monotonic()))
    say(totals("summary"))


if __name__ == "__main__":
    main()
