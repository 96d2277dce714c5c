#!/bin/sh
# Regenerates the committed protobuf modules from the two protocol definitions, both taken from their Go modules.
# Run it from anywhere with the development environment's python first on PATH; needs go and grpcio-tools.
set -eu

CSI_MODULE=github.com/container-storage-interface/spec@v1.13.0
KUBELET_MODULE=k8s.io/kubelet@v0.35.4

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
source_root=$(CDPATH='' cd -- "$here/../../.." && pwd)

module_dir() {
    go mod download -json "$1" | python -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}

install -m 0644 "$(module_dir "$CSI_MODULE")/csi.proto" "$here/csi.proto"
install -m 0644 "$(module_dir "$KUBELET_MODULE")/pkg/apis/pluginregistration/v1/api.proto" "$here/pluginregistration.proto"

cd "$source_root"
python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. \
    coppice/csi/proto/csi.proto coppice/csi/proto/pluginregistration.proto
