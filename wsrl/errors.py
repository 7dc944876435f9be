"""What the user gave was wrong: one exception whose message says what, what is allowed, what to do."""


class UserError(ValueError):
    """An input, option or file that cannot be used; the command line prints it without a traceback.

    Args:
        wrong: What was wrong, naming the file, key or value.
        allowed: What would be accepted.
        do: What the user can do now.
    """

    def __init__(self, wrong: str, *, allowed: str = "", do: str = ""):
        self.wrong, self.allowed, self.do = wrong, allowed, do
        parts = [wrong.rstrip(".")]
        parts += [f"Allowed: {allowed.rstrip('.')}"] if allowed else []
        parts += [f"What to do: {do.rstrip('.')}"] if do else []
        super().__init__(". ".join(parts) + ".")


class SignalError(UserError):
    """One signal that cannot be read or used; a build records it with this reason and goes on."""
