"""A multimodal backbone: video, sound and language, over episodes of any length."""
