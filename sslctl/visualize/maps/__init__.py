"""Where a network looks: attention maps, masks, patch features as colours."""
