"""What objectives share: encoder, heads, teacher, queue and centre, losses, clusters, batch norm, precision."""
