"""Orders from before the shop had this application.

References were written into the free-text note then, and one was entered twice: order 1618 and order 2718 both say
"ref WEB-01618". Nothing minds, until v3 makes references unique.
"""

from django.db import migrations

CUSTOMERS = 40
ORDERS = 4000
ENTERED_TWICE = {2718: 1618}


def fill(apps, schema_editor):
    Customer = apps.get_model("shop", "Customer")
    Order = apps.get_model("shop", "Order")
    customers = Customer.objects.bulk_create(
        Customer(name=f"Customer {number}", email=f"customer-{number}@example.com")
        for number in range(1, CUSTOMERS + 1)
    )
    Order.objects.bulk_create(
        (
            Order(
                customer=customers[number % CUSTOMERS],
                total_cents=500 + number * 37 % 20000,
                note=f"ref WEB-{ENTERED_TWICE.get(number, number):05}",
            )
            for number in range(1, ORDERS + 1)
        ),
        batch_size=1000,
    )


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
