"""A small web shop over the Chinook sample database: the environment says where that is, and it knows nothing else."""
