"""What forges (GitHub, GitLab) tell of pull requests, and what is written there. Knows nothing of Kubernetes."""
