"""Generated protobuf modules of the CSI and of the kubelet's plug-in registration; see generate.sh."""
