"""Measures the service side by side with the limit that QEMU alone sets; see `scripts/bench`."""
