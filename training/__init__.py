"""Makes the network's weights: a standalone program beside the library, which never imports it."""
