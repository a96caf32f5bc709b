"""One pair: read, fuse, look at the verdict, write.

``python examples/fuse_one_pair.py ct.nrrd mri.nrrd results``; without arguments it uses the phantom.
"""

import sys
import tempfile
from pathlib import Path

from BrainFusionLib import fuse, read_volume, write_transform, write_volume
from BrainFusionLib.phantom import make_pair

if len(sys.argv) not in (1, 4):
    sys.exit("Usage: python fuse_one_pair.py CT MRI FOLDER")
if len(sys.argv) == 4:
    ct, mri, folder = read_volume(sys.argv[1]), read_volume(sys.argv[2]), Path(sys.argv[3])
else:
    pair = make_pair(spacing_mm=2, rotation_deg=20, translation_mm=15)
    ct, mri, folder = pair.ct, pair.mri, Path(tempfile.mkdtemp())

result = fuse(ct, mri)

folder.mkdir(parents=True, exist_ok=True)
write_volume(result.fused, folder / "fused.nii.gz")
write_transform(result.transform, folder / "ct_to_mri.tfm")

print(result.verdict.sentence)
for finding in result.verdict.findings:
    print(f"  {finding.level}: {finding.text}")
print(f"Written to {folder}")
