"""The use cases: one method per thing that a client can ask for."""
