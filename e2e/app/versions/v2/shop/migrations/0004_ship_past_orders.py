"""A shipment for every order that has none, in batches that are committed one by one.

Takes three to four seconds, nearly all of it the pause after each batch: see `in_batches`.
"""

from django.db import migrations

from shop.batches import in_batches


def ship(apps, schema_editor):
    Order = apps.get_model("shop", "Order")
    Shipment = apps.get_model("shop", "Shipment")

    def change(orders):
        # Another run may have got here first, or been cut off: what is there stays as it is.
        Shipment.objects.bulk_create(
            [Shipment(order=order, shipped_at=order.placed_at) for order in orders], ignore_conflicts=True
        )

    in_batches(schema_editor, Order.objects.filter(shipment=None), 200, change)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0003_shipments")]
    operations = [migrations.RunPython(ship, migrations.RunPython.noop)]
