"""Stands in for a sidecar: says every ten seconds that it is there, and ends as soon as it is told to."""

import signal
import sys
import threading

stop = threading.Event()
# A container's first process gets no signal that it has not asked for.
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stop.set())
name = sys.argv[1]
print(f"{name}: here", flush=True)
while not stop.wait(10):
    print(f"{name}: still here", flush=True)
print(f"{name}: told to stop", flush=True)
