"""Copies references out of the notes; where one was entered twice, the later order gets a suffix.

Replaces the migration of the same name in v3, which fails. Starts from whatever that one left behind, or from nothing:
only orders that have no reference yet are looked at.
"""

from django.db import migrations

from shop.batches import in_batches


def fill(apps, schema_editor):
    Order = apps.get_model("shop", "Order")

    def change(orders):
        for order in orders:
            reference = order.note.removeprefix("ref ")
            if Order.objects.filter(reference=reference).exists():
                reference = f"{reference}/{order.pk}"
            order.reference = reference
            order.save(update_fields=["reference"])

    in_batches(schema_editor, Order.objects.filter(reference=None, note__startswith="ref "), 400, change)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0005_order_reference")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
