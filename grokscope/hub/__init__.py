"""The Hugging Face Hub: push a run with its page and a model card, and pull it again."""
