"""Fuzzing of the decoders: valid requests, mutations that know their structure, independent readings, bounds."""
