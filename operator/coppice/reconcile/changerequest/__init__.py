"""What a DataChangeRequest comes to, part by part."""
