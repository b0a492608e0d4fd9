"""What a network sees, as pictures."""
