"""Data migrations in batches: each batch is its own transaction, so that no lock is held for long."""

from django.conf import settings
from django.db import transaction


def in_batches(schema_editor, queryset, size, change):
    """Call `change` with lists of rows, ordered by id, each list in a transaction that is committed.

    What was committed stays when a later batch fails, so `queryset` should select what has not been done yet. The
    pause stands in for the time that real tables take: a few thousand rows are done in a blink.
    """
    last = 0
    while rows := list(queryset.filter(pk__gt=last).order_by("pk")[:size]):
        with transaction.atomic(using=schema_editor.connection.alias):
            change(rows)
        last = rows[-1].pk
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [settings.MIGRATION_BATCH_PAUSE])
