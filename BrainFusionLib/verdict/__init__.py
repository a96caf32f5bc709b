"""The verdict: how reliable a pose is."""
