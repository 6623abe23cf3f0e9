"""A stored model's answers to files of rows: read ahead, computed as its service would, kept in parts, put together.

Here is what goes on beside the runtime: `reading/` has the formats of files, `engines/` what spreads the work over
machines. What loads a model and how it is run is the services' (`hone.services.models`), steps are `hone.steps`.
"""
