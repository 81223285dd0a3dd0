"""What is particular to one system and to no other."""
