"""The forms that models of images come in, and what is made of each: weights, graphs, and what they return."""
