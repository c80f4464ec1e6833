"""Building blocks of guest recipes: packages, kernel modules, initramfs, disks, distributions.

Plain standard library, because recipes also run before VoidVM itself is installed.
"""
