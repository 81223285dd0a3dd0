"""What makes training data with language models: resumable flows over JSON Lines.

An engine is a program of one item; :mod:`llmdet.data_engines.flow` takes all items through it and
through the models, and finished items wait in a journal (:mod:`llmdet.data_engines.journal`) that
knows what they depend on.
"""
