"""What Coppice knows of each database engine, as data and small functions."""
