"""From rows to token ids: prompt templates, chat templates, tokenizers. Imports models (shapes) and storage."""
