"""Text of whole sentences, as Real-Model reads it: all positions of BERT are used.

The head that compares boxes with tokens takes its length from here too.
"""

long_text = dict(max_tokens=512)
