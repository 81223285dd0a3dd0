"""What makes training data with language models: resumable steps over JSON Lines.

An engine turns items into rows (:mod:`llmdet.data_engines.steps`); finished rows wait in a journal
(:mod:`llmdet.data_engines.journal`) that knows what they depend on.
"""
