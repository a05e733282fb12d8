"""The worker: places an order every second, through this version's own columns and tables."""

import signal
import threading

from django.core.management.base import BaseCommand

from shop.models import Customer, Order
from shop.version import VERSION


class Command(BaseCommand):
    help = "Places an order every second until it is told to stop."

    def add_arguments(self, parser):
        parser.add_argument("--every", type=float, default=1.0, help="seconds between orders")

    def handle(self, *, every, **options):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            customer = Customer.objects.order_by("?").first()
            order = Order.objects.place(customer_id=customer.pk, total_cents=4200)
            self.stdout.write(f"{VERSION}: order {order.pk} for {customer.name}")
            self.stdout.flush()
            stop.wait(every)
        self.stdout.write(f"{VERSION}: told to stop")
