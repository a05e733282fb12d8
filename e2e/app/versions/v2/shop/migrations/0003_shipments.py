"""Adds a column and a table. Both are additions that v1 does not notice: it goes on serving meanwhile."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_past_orders")]
    operations = [
        migrations.AddField("order", "currency", models.CharField(db_default="EUR", max_length=3)),
        migrations.CreateModel(
            name="Shipment",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("shipped_at", models.DateTimeField(null=True)),
                ("order", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, to="shop.order")),
            ],
        ),
    ]
