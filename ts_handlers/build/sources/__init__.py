"""The models that builds are made of, read and judged whole: Hugging Face folders, sentence-transformers, image files."""
