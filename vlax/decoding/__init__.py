"""Text from a model: greedy, sampled, beam, closed answers; batched company changes no answer. Imports data's batches."""
