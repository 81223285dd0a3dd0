"""Pure text, without torch: prompts and conversations, written and tokenised in one place."""
