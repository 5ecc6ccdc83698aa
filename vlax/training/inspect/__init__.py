"""The first batches of a stage, shown as the model will see them. Imports training."""
