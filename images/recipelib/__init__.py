"""Building blocks of guest recipes: packages, kernel modules, initramfs and disks, without root.

Plain standard library, because recipes also run before VoidVM itself is installed.
"""
