"""v1: customers and their orders."""

from django.db import models
from django.db.models.functions import Now


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)


class Orders(models.Manager):
    def place(self, **fields):
        return self.create(**fields)


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT)
    total_cents = models.PositiveIntegerField()
    note = models.TextField(blank=True, db_default="")
    placed_at = models.DateTimeField(db_default=Now())

    objects = Orders()
