"""Somebody else's registration: judge a pose without changing it.

``python examples/check_a_registration.py ct.nrrd mri.nrrd pose.tfm``; without arguments it uses the phantom, with a
pose that is 4 mm off. The transform, rigid or affine, maps points of the MRI to points of the CT (LPS, mm), as
SimpleITK writes it.
"""

import sys

import numpy as np

from BrainFusionLib import RigidTransform, fuse, read_transform, read_volume
from BrainFusionLib.phantom import make_pair

if len(sys.argv) not in (1, 4):
    sys.exit("Usage: python check_a_registration.py CT MRI TRANSFORM")
if len(sys.argv) == 4:
    ct, mri, pose = read_volume(sys.argv[1]), read_volume(sys.argv[2]), read_transform(sys.argv[3], rigid=False)
else:
    pair = make_pair(spacing_mm=2, rotation_deg=20, translation_mm=15)
    shifted = np.array(pair.transform.moving_from_fixed_lps)
    shifted[0, 3] += 4
    ct, mri, pose = pair.ct, pair.mri, RigidTransform(shifted)

result = fuse(ct, mri, transform=pose)

print(result.verdict.sentence)
print(*(f"  {finding.text}" for finding in result.verdict.findings if finding.level != "green"), sep="\n")
