"""What a model of images returns, found out by running it: scores, boxes, masks, and how many labels."""
