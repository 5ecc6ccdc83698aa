"""What lies below a folder of runs: stages, steps, scores, sizes; and what of it nobody needs any more."""
