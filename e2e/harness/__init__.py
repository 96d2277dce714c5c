"""The cluster harness: brings up, describes and removes the cluster the end-to-end tests run on.

Standard library only: it runs before any virtual environment exists.
"""
