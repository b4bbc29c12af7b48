"""What is done between the elements of a batch."""
