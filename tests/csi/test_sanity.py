"""csi-sanity, the conformance suite of the CSI project, against the running driver.

The program is found on PATH or named by CSI_SANITY; the Go module e2e/toolchain/sanity builds it.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from tests.csi.driver import MIB
from tests.csi.process import DriverProcess
from tests.fakes.required import lacks

from coppice.csi.pool import PoolSettings

# Why specs are skipped, and how many: capabilities this driver does not have (docs/coppice-local.md says why not).
SKIPPED = {
    "ControllerPublishVolume not supported": 7,
    "ControllerUnpublishVolume not supported": 1,
    "Controller Publish, UnpublishVolume not supported": 2,
    "NodeStageVolume not supported": 3,
    "NodeUnstageVolume not supported": 2,
    "GroupControllerService not supported": 6,
    "ControllerModifyVolume not supported": 6,
    "Modify volume not supported": 1,
    "Modify Volume not supported": 1,
    "ControllerGetVolumeHealth not supported": 2,
    "ControllerListVolumeHealth not supported": 1,
    "NodeGetVolumeHealth not supported": 2,
    "NodeGetStorageHealth not supported": 1,
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported": 1,
}


def test_csi_sanity_passes_whole(settings: PoolSettings, tmp_path: Path) -> None:
    program = os.environ.get("CSI_SANITY") or shutil.which("csi-sanity")
    if program is None:
        lacks("csi-sanity is not on PATH: build it in e2e/toolchain/sanity, or name it in CSI_SANITY")
    driver = DriverProcess(settings, tmp_path / "driver")
    driver.start()
    report = tmp_path / "report.json"
    result = subprocess.run(
        [
            program,
            f"--csi.endpoint=unix://{driver.socket}",
            f"--csi.mountdir={tmp_path / 'mount'}",
            f"--csi.stagingdir={tmp_path / 'staging'}",
            f"--csi.testvolumesize={16 * MIB}",
            f"--csi.testvolumeexpandsize={32 * MIB}",
            f"--ginkgo.json-report={report}",
            "--ginkgo.no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert driver.stop() == 0
    assert result.returncode == 0, result.stdout
    specs = [spec for suite in json.loads(report.read_text()) for spec in suite["SpecReports"] or ()]
    states = Counter(spec["State"] for spec in specs if spec["LeafNodeType"] == "It")
    assert states == {"passed": 66, "skipped": 36, "pending": 1}, states
    reasons = Counter(spec["Failure"]["Message"] for spec in specs if spec["State"] == "skipped")
    assert reasons == SKIPPED
