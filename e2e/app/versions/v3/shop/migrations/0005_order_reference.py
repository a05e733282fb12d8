"""The column and its constraint, before there is anything in it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0004_ship_past_orders")]
    operations = [
        migrations.AddField("order", "reference", models.CharField(max_length=20, null=True)),
        migrations.AddConstraint(
            "order", models.UniqueConstraint(fields=["reference"], name="order_reference_is_unique")
        ),
    ]
