"""Labelling pictures with a detector: training data from images and a list of classes.

``settings`` says what is looked for, ``engine`` looks and keeps every finished image in a journal,
``output`` writes the journal as a data set, and ``review`` what a person should look at.
"""
