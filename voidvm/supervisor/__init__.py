"""Keeps each VM's process, status and console in step with what was asked."""
