"""Registration on simulated CT-MRI cases with exact truth: ours and the field's tools on the same cases."""
