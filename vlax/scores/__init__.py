"""From references and hypotheses to figures with intervals. Imports errors alone."""
