"""coppice-local: a copy-on-write CSI driver for one node, on btrfs subvolumes."""
