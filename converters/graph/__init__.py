"""Work on ONNX graphs that several passes and sources share: walking, renaming, masks, scales, signatures.

What only one pass needs lives in that pass.
"""
