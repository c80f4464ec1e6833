"""What VoidVM is about, as values and rules: no I/O."""
