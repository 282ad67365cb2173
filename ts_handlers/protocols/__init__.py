"""What a request says of itself, the forms it comes in, and the answer in the same form."""
