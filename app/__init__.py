"""What a person types and sees, and the roles a node plays: the only room where the others meet."""
