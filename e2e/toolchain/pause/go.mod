module coppice.dev/e2e/toolchain/pause

go 1.25.0
