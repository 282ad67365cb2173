"""Files of pictures, byte by byte: what they are, and what in them is no pixel."""
