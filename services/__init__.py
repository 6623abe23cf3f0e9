"""BentoML services around stored artifacts: `bentoml serve services.digits:Digits`.

Making artifacts is the room beside; loading and running them is `hone.runtimes`.
"""
