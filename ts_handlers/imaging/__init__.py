"""Pictures: decoding, resizing, boxes and masks."""
