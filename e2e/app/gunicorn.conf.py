"""How the shop is served; gunicorn reads this file from its working directory."""

bind = "0.0.0.0:8000"
workers = 2
threads = 4
# The root file system is read-only.
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
# Requests under way are finished: with the sleep before it this fits into the 30 s that a Pod has.
graceful_timeout = 20
