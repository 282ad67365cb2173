"""Texts: the tokenizer, entities, and spans of answers."""
