"""v2: orders have a currency and are shipped."""

from django.db import models, transaction
from django.db.models.functions import Now


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)


class Orders(models.Manager):
    @transaction.atomic
    def place(self, **fields):
        order = self.create(**fields)
        Shipment.objects.create(order=order)
        return order


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT)
    total_cents = models.PositiveIntegerField()
    # The default is the database's own: v1 keeps inserting orders without this column.
    currency = models.CharField(max_length=3, db_default="EUR")
    note = models.TextField(blank=True, db_default="")
    placed_at = models.DateTimeField(db_default=Now())

    objects = Orders()


class Shipment(models.Model):
    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    shipped_at = models.DateTimeField(null=True)
