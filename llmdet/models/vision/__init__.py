"""What is seen: views of an image, where it lies in them, and the towers that read them."""
