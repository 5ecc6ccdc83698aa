"""Where else a run is logged: one interface, a file for each tracker, none of them imported unless `run.trackers` names it."""
