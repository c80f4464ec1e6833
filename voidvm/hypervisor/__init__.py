"""The only package that knows QEMU: its command line, process, monitor, serial line and tools."""
