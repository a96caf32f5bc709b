"""Where registration and verdict stand on heads with scanner physics."""
