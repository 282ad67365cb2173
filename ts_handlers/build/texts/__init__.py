"""What a build needs to know of a model of texts, found by the model and its tokenizer themselves."""
