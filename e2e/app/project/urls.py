"""Where requests go."""

from django.urls import path

from shop import views

urlpatterns = [
    path("", views.index),
    path("orders", views.place_order),
    path("ready", views.ready),
    path("version", views.version),
]
