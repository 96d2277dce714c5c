"""The Kubernetes API of Coppice: pydantic models without I/O, the one source of the CRDs."""
