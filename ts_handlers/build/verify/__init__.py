"""Does the finished archive answer as the source's own library does? Asked end to end, with raw texts and pictures."""
