"""Data sets, their transforms and samplers.

Nothing is imported here, so that tools which only read annotation files start at once. Parts that
configs name are found by the registries, which list their modules.
"""
