"""Which version of the shop this is."""

VERSION = "v2"
