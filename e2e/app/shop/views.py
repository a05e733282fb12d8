"""What the web Pods serve. The same in every version: what differs is in models.py, version.py and the migrations."""

import os

from django.apps import apps
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import JsonResponse
from django.views.decorators.http import require_POST

from shop.models import Order
from shop.version import VERSION

POD = os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", "")


def index(request):
    """Version, Pod and how many rows there are of everything this version knows."""
    rows = {str(model._meta.verbose_name_plural): model.objects.count() for model in shop_models()}
    return JsonResponse({"version": VERSION, "pod": POD, "rows": rows})


@require_POST
def place_order(request):
    """Write, the way this version writes."""
    order = Order.objects.place(customer_id=1, total_cents=1990)
    return JsonResponse({"version": VERSION, "pod": POD, "order": order.pk}, status=201)


def version(request):
    """Which version this is, without asking the database."""
    return JsonResponse({"version": VERSION, "pod": POD})


def ready(request):
    """Ready only where the schema of this version is there.

    Reads a row with every column of every table that this version knows, and looks for migrations of its own that
    have not been applied. Migrations that are applied but unknown here belong to a newer version: that is fine.
    """
    try:
        for model in shop_models():
            model.objects.first()
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        reason = str(error).strip().splitlines()[0]
        return JsonResponse({"version": VERSION, "ready": False, "reason": reason}, status=503)
    if pending:
        reason = "not applied: " + ", ".join(migration.name for migration, _ in pending)
        return JsonResponse({"version": VERSION, "ready": False, "reason": reason}, status=503)
    return JsonResponse({"version": VERSION, "ready": True})


def shop_models():
    return apps.get_app_config("shop").get_models()
