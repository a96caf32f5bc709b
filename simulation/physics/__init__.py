"""Heads scanned with the physics of real scanners, with the exact place of the anatomy in both images.

`strengths` holds how strong each effect is, in the hierarchy scanner, protocol, patient; `draw` draws them as they
occur, `effects` one by one, `kinds` in the mix and by hand. `anatomy` prepares a head, `movement` moves it between the
two scans, `magnet` says where the MRI draws it, `mri` and `ct` make the images, `case` the case. Formulas and ranges:
PHYSICS.md in the folder that the project's sessions share.
"""
