"""Feast's objects: entities, sources, views and services. Importing them touches no store and reads no
environment; where the data lies is said by the store configuration alone.
"""
