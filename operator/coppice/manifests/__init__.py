"""Pure builders of the Kubernetes objects that Coppice makes."""
