"""Waits until the database answers: an init container of every Pod, and so of the migration run too."""

import time

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection


class Command(BaseCommand):
    help = "Waits until the database accepts connections."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("--timeout", type=float, default=300.0, help="seconds before giving up")

    def handle(self, *, timeout, **options):
        deadline = time.monotonic() + timeout
        told = None
        while True:
            try:
                connection.ensure_connection()
            except OperationalError as error:
                reason = str(error).strip().splitlines()[-1]
                if reason != told:
                    self.stdout.write(f"waiting for the database: {reason}")
                    self.stdout.flush()
                    told = reason
                if time.monotonic() > deadline:
                    raise CommandError(f"the database did not answer in {timeout:.0f} s: {reason}") from None
                time.sleep(0.5)
            else:
                self.stdout.write("the database answers")
                return
