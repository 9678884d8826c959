"""Decoders turn stored bytes into uint8 pixels: the interface in `base`, the choice in `choose`."""
