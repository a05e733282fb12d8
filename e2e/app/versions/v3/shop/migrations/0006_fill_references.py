"""Copies references out of the notes, and fails at the first one that was entered twice.

This is the mistake of v3, and a realistic one: nobody looked for duplicates beforehand. It fails halfway: 0005 is applied
and the batches before the duplicate are committed. v4 carries a repaired migration of the same name, which is right here
because this one can't have been applied anywhere.
"""

from django.db import IntegrityError, migrations

from shop.batches import in_batches


def fill(apps, schema_editor):
    Order = apps.get_model("shop", "Order")

    def change(orders):
        for order in orders:
            reference = order.note.removeprefix("ref ")
            if twin := Order.objects.filter(reference=reference).first():
                raise IntegrityError(
                    f"order {order.pk} has reference {reference}, which order {twin.pk} already has: "
                    "references must be unique"
                )
            order.reference = reference
            order.save(update_fields=["reference"])

    in_batches(schema_editor, Order.objects.filter(reference=None, note__startswith="ref "), 400, change)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0005_order_reference")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
