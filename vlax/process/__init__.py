"""This process among others: signals, activity, leases, peers, the parent of hosts. Imports errors, printing and storage."""
