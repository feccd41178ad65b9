"""What a solver was set to, for tests of what reaches it."""


def settings_of(solver):
    """Its class and the fields that are values."""
    values = {name: value for name, value in vars(solver).items() if not callable(value)}
    return type(solver).__name__, values
