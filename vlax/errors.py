"""The one exception for a user's mistake: its text is shown without a stack trace."""


class VlaxError(Exception):
    """Something that its user can mend. The message names the thing and the way out."""
