"""Heads with exact truth, for tests, training and benchmarks: nothing of it is shipped.

`tissues` says what a head is made of and what that looks like, `heads` and `label_maps` where it lies, `render` and
`objects` make images of it, `cases` and `spoilt` CT-MRI pairs in poses that are known. `aligned` makes pairs on one
grid, `from_ct` an MRI out of a real CT, `scans` and `slices_torch` the slices that networks are trained on.
`physics` scans heads as real scanners do, with the exact place of the anatomy in both images.
"""
